"""Token weights: (N,) from logits (N, V) and negative log-likelihoods (N,), nats, in fp32."""

import math

from torch import Tensor

from tunewright_hf.losses.chunked_cross_entropy import TokenWeighting

LIKELIEST = 20  # top tokens whose entropy EAFT computes


def dft(logits: Tensor, losses: Tensor) -> Tensor:
    """Probability of the label: dynamic fine-tuning (Wu et al. 2025, arXiv:2508.05629)."""
    return (-losses).exp()


def eaft(logits: Tensor, losses: Tensor) -> Tensor:
    """Normalised entropy of the top tokens: entropy-adaptive fine-tuning (Diao et al. 2026,
    arXiv:2601.02151). LLaMA-Factory divides by 3.0 instead of ln 20 = 2.996."""
    likeliest = logits.topk(min(LIKELIEST, logits.shape[-1])).values.log_softmax(-1)
    return -(likeliest.exp() * likeliest).sum(-1) / math.log(likeliest.shape[-1])


#: by name; None: no weighting
LOSSES: dict[str, TokenWeighting | None] = {"nll": None, "dft": dft, "eaft": eaft}
