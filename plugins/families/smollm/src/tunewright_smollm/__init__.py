"""SmolLM 1 to 3. The first two have the architecture of Llama: by config.json alone such a
checkpoint is a llama."""

from tunewright_hf.models.family import HfFamily


class SmolLM(HfFamily):
    """SmolLM 1 and 2 (Allal et al. 2025, arXiv:2502.02737) and SmolLM3."""
