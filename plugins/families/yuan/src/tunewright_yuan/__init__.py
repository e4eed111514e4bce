"""IEIT's Yuan 2.0."""

from tunewright_hf.models.family import HfFamily


class Yuan(HfFamily):
    """Yuan 2.0 (Wu et al. 2023, arXiv:2311.15786)."""
