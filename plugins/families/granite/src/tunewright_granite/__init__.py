"""Granite 3 and 4: dense models, mixtures of experts, and hybrids with Mamba layers."""

from tunewright_hf.models.family import HfFamily


class Granite(HfFamily):
    """Granite 3 and 4 (IBM, 2024 and 2025, github.com/ibm-granite)."""
