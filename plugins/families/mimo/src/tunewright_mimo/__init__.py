"""Xiaomi's MiMo-7B and MiMo-V2-Flash."""

from tunewright_hf.models.family import HfFamily


class MiMo(HfFamily):
    """MiMo-7B (Xia et al. 2025, arXiv:2505.07608) and MiMo-V2-Flash."""
