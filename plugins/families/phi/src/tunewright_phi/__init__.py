"""Phi-1.5 to Phi-4."""

from tunewright_hf.models.family import HfFamily


class Phi(HfFamily):
    """Phi-1.5 (arXiv:2309.05463), Phi-2, Phi-3 and 3.5 (arXiv:2404.14219), Phi-4 (arXiv:2412.08905)
    and Phi-4-mini."""
