"""Skywork-13B and Skywork-o1."""

from tunewright_hf.models.family import HfFamily


class Skywork(HfFamily):
    """Skywork-13B (Wei et al. 2023, arXiv:2310.19341) and Skywork-o1, which has the architecture of
    Llama 3.1."""
