"""Yi, Yi-1.5 and Yi-Coder, which have the architecture of Llama, and Yi-VL, a LLaVA."""

from tunewright_hf.models.family import HfFamily


class Yi(HfFamily):
    """Yi, Yi-1.5, Yi-Coder and Yi-VL (01.AI 2024, arXiv:2403.04652)."""
