"""Qwen 1 to 3.6, dense and mixtures of experts."""

from tunewright_hf.models.family import HfFamily


class Qwen(HfFamily):
    """Qwen to Qwen3.6 (Bai et al. 2023, arXiv:2309.16609; Yang et al. 2025,
    arXiv:2505.09388)."""
