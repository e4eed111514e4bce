"""Yi, Yi-1.5 and Yi-Coder, which have the architecture of Llama."""

from tunewright_hf.models.family import HfFamily


class Yi(HfFamily):
    """Yi, Yi-1.5 and Yi-Coder (01.AI 2024, arXiv:2403.04652)."""
