"""Tencent's Hunyuan: Large, A13B, and the dense models of 0.5B to 7B."""

from tunewright_hf.models.family import HfFamily


class Hunyuan(HfFamily):
    """Hunyuan-Large to Hunyuan-A13B (Sun et al. 2024, arXiv:2411.02265)."""
