"""What the plugins on torch and transformers share: loading, templates, masks, collating, trainer glue, checkpoints."""
