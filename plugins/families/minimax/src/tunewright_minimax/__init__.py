"""MiniMax-Text-01, MiniMax-M1 and MiniMax-M2."""

from tunewright_hf.models.family import HfFamily


class MiniMax(HfFamily):
    """MiniMax-01 (Li et al. 2025, arXiv:2501.08313), MiniMax-M1 (Chen et al. 2025,
    arXiv:2506.13585) and MiniMax-M2."""
