"""Index-1.9B, whose modelling code is on the hub only."""

from tunewright_hf.models.family import HfFamily


class Index(HfFamily):
    """Index-1.9B (Bilibili 2024, https://github.com/bilibili/Index-1.9B)."""
