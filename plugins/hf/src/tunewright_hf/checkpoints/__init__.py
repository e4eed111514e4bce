"""Checkpoint folders, and nested states as JSON and safetensors."""
