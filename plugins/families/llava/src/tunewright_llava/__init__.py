"""LLaVA: a vision tower and a projector in front of many language models."""

from tunewright_hf.models.family import HfFamily


class Llava(HfFamily):
    """LLaVA-1.5 (Liu et al. 2023, arXiv:2310.03744), LLaVA-NeXT, LLaVA-NeXT-Video and
    LLaVA-OneVision (Li et al. 2024, arXiv:2408.03326), in the form of transformers (`-hf`)."""
