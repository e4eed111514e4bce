"""Mistral 7B to Small 3, Mixtral, Nemo and Ministral."""

from tunewright_hf.models.family import HfFamily


class Mistral(HfFamily):
    """Mistral 7B (Jiang et al. 2023, arXiv:2310.06825), Mixtral (arXiv:2401.04088) and later
    models."""
