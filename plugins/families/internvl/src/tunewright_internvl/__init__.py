"""InternVL 2.5 to 3.5, in the form of transformers."""

from tunewright_hf.models.family import HfFamily


class InternVL(HfFamily):
    """InternVL (Zhu et al. 2025, arXiv:2504.10479): the checkpoints whose names end in -HF. The
    others hold code of their own."""
