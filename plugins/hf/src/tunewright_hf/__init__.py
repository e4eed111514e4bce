"""Code shared by plugins for torch and transformers.

Templates, tokenization, models, batching, losses, training, checkpoints and distributed training.
"""
