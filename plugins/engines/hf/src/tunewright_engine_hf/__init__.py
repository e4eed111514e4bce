"""Replies from transformers' own generate, streamed."""
