"""Rows to batches: samplers and collators."""
