"""Moonshot's Kimi K2 and Moonlight."""

from tunewright_hf.models.family import HfFamily


class Kimi(HfFamily):
    """Kimi K2 (Kimi Team 2025, arXiv:2507.20534) and Moonlight (Liu et al. 2025,
    arXiv:2502.16982)."""
