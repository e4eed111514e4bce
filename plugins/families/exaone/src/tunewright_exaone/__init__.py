"""LG's EXAONE 3.0 to 4.0."""

from tunewright_hf.models.family import HfFamily


class Exaone(HfFamily):
    """EXAONE 3.0 to 4.0 (LG AI Research 2024, arXiv:2408.03541; 2025, arXiv:2507.11407)."""
