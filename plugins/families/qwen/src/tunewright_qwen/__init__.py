"""Qwen 1.5 to 3.5, dense and mixtures of experts."""

from tunewright_hf.models.family import HfFamily


class Qwen(HfFamily):
    """Qwen1.5 to Qwen3.5 (Bai et al. 2023, arXiv:2309.16609; Yang et al. 2025,
    arXiv:2505.09388)."""
