"""Liquid AI's LFM2 and LFM2.5: short convolutions alternating with attention."""

from tunewright_hf.models.family import HfFamily


class Lfm2(HfFamily):
    """LFM2 (Liquid AI 2025, arXiv:2511.23404)."""
