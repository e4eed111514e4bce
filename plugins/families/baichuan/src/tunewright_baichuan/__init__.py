"""Baichuan and Baichuan 2, whose modelling code is on the hub only."""

from tunewright_hf.models.family import HfFamily


class Baichuan(HfFamily):
    """Baichuan and Baichuan 2 (Yang et al. 2023, arXiv:2309.10305)."""
