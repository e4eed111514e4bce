"""OLMo 1 to 3 and OLMoE."""

from tunewright_hf.models.family import HfFamily


class Olmo(HfFamily):
    """OLMo (arXiv:2402.00838), OLMo 2 (arXiv:2501.00656), OLMoE (arXiv:2409.02060) and OLMo 3."""
