"""Falcon, Falcon 2 and Falcon-H1."""

from tunewright_hf.models.family import HfFamily


class Falcon(HfFamily):
    """Falcon, Falcon 2 and Falcon-H1 (Almazrouei et al. 2023, arXiv:2311.16867; Zuo et al. 2025,
    arXiv:2507.22448)."""
