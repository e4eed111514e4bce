"""Gemma 1 to 3 and CodeGemma; Gemma 3, Gemma 3n and PaliGemma with images, Gemma 3n with audio."""

from tunewright_hf.models.family import HfFamily


class Gemma(HfFamily):
    """Gemma (arXiv:2403.08295), Gemma 2 (arXiv:2408.00118), Gemma 3 (arXiv:2503.19786), Gemma 3n,
    and PaliGemma (arXiv:2407.07726)."""
