"""NVIDIA's Nemotron-4, Minitron, Nemotron-H and Nemotron 3."""

from tunewright_hf.models.family import HfFamily


class Nemotron(HfFamily):
    """Nemotron-4 (arXiv:2402.16819), Minitron (arXiv:2407.14679), Nemotron-H (arXiv:2504.03624) and
    Nemotron 3."""
