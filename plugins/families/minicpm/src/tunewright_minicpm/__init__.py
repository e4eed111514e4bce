"""OpenBMB's MiniCPM 1 to 4.1."""

from tunewright_hf.models.family import HfFamily


class MiniCPM(HfFamily):
    """MiniCPM 1 to 4.1 (Hu et al. 2024, arXiv:2404.06395; MiniCPM Team 2025, arXiv:2506.07900)."""
