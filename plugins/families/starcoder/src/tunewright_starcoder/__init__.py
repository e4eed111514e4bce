"""StarCoder and StarCoder2."""

from tunewright_hf.models.family import HfFamily


class Starcoder(HfFamily):
    """StarCoder and StarCoder2 (Li et al. 2023, arXiv:2305.06161; Lozhkov et al. 2024,
    arXiv:2402.19173)."""
