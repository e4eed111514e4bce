"""InternLM 1 to 3; the modelling code of all but the last is on the hub only."""

from tunewright_hf.models.family import HfFamily


class InternLM(HfFamily):
    """InternLM 1 to 3 (Cai et al. 2024, arXiv:2403.17297)."""
