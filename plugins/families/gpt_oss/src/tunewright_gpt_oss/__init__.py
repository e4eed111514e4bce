"""gpt-oss, OpenAI's open weights."""

from tunewright_hf.models.family import HfFamily


class GptOss(HfFamily):
    """gpt-oss (OpenAI 2025, arXiv:2508.10925)."""
