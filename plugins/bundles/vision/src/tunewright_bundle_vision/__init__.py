"""Fine-tune models that see and hear: the bundle text, with media decoders."""
