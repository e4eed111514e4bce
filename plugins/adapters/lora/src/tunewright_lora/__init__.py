"""Low-rank adapters: LoRA, DoRA, rsLoRA, PiSSA, LoRA+."""
