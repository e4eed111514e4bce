"""Baidu's ERNIE 4.5, dense and mixtures of experts."""

from tunewright_hf.models.family import HfFamily


class Ernie(HfFamily):
    """ERNIE 4.5 (Baidu-ERNIE-Team 2025, ERNIE 4.5 Technical Report)."""
