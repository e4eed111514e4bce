"""XVERSE, whose modelling code is on the hub only."""

from tunewright_hf.models.family import HfFamily


class Xverse(HfFamily):
    """XVERSE (XVERSE Technology 2023, https://github.com/xverse-ai/XVERSE-13B)."""
