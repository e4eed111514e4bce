"""ChatGLM3, GLM-4, GLM-4-0414, GLM-Z1 and GLM-4.5 to 4.7."""

from tunewright_hf.models.family import HfFamily


class ChatGlm(HfFamily):
    """ChatGLM and GLM-4 (GLM Team 2024, arXiv:2406.12793), GLM-4.5 (GLM Team 2025,
    arXiv:2508.06471)."""
