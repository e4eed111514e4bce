"""ByteDance's Seed-Coder and Seed-OSS."""

from tunewright_hf.models.family import HfFamily


class Seed(HfFamily):
    """Seed-Coder (Zhang et al. 2025, arXiv:2506.03524) and Seed-OSS."""
