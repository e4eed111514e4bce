"""Batching: samplers and collators."""
