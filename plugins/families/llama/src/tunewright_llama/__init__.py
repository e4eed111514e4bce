"""Llama 1 to 4, and the many models with its architecture."""

from tunewright_hf.models.family import HfFamily


class Llama(HfFamily):
    """Llama 1 to 4 (Touvron et al. 2023, arXiv:2302.13971; Grattafiori et al. 2024,
    arXiv:2407.21783)."""
