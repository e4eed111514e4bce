"""DeepSeek LLM, Coder, MoE, V2, V2.5, V3 and R1."""

from tunewright_hf.models.family import HfFamily


class DeepSeek(HfFamily):
    """DeepSeek LLM to R1 (arXiv:2401.02954, 2401.06066, 2401.14196, 2405.04434, 2412.19437,
    2501.12948)."""
