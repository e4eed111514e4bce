"""Command R, Command R7B and Aya."""

from tunewright_hf.models.family import HfFamily


class Cohere(HfFamily):
    """Command R, Command R7B (Cohere 2025, arXiv:2504.00698) and Aya Expanse (arXiv:2412.04261)."""
