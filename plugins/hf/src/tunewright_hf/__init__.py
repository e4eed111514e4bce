"""What Tunewright's torch and transformers plugins share: loading, templates, masks, collating, trainer glue, checkpoints."""
