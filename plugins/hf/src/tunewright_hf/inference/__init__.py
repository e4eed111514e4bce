"""Inference with models in memory: prompts, the slot scheduler, sampling, streamed text."""
