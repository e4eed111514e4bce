"""Gemma 1 and 2, CodeGemma and Gemma 3 for text."""

from tunewright_hf.models.family import HfFamily


class Gemma(HfFamily):
    """Gemma (arXiv:2403.08295), Gemma 2 (arXiv:2408.00118) and Gemma 3 for text
    (arXiv:2503.19786)."""
