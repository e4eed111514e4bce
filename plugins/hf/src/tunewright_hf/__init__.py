"""What the plugins on torch and transformers share.

Templates, tokenization, models, batching, losses, training, checkpoints and distributed training.
"""
