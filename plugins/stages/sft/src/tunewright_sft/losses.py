"""What counts of each token's loss: (N,) from logits (N, V) and negative log-likelihoods (N,),
nats, in fp32."""

import math

from torch import Tensor

from tunewright_hf.losses.chunked_cross_entropy import TokenWeighting

LIKELIEST = 20  # tokens that EAFT takes the entropy over


def dft(logits: Tensor, losses: Tensor) -> Tensor:
    """The label's own probability: dynamic fine-tuning (Wu et al. 2025, arXiv:2508.05629)."""
    return (-losses).exp()


def eaft(logits: Tensor, losses: Tensor) -> Tensor:
    """Entropy of the likeliest tokens among themselves, as a share of the most that it can be:
    entropy-adaptive fine-tuning (Diao et al. 2026, arXiv:2601.02151). LLaMA-Factory divides by 3.0
    in place of ln 20 = 2.996."""
    likeliest = logits.topk(min(LIKELIEST, logits.shape[-1])).values.log_softmax(-1)
    return -(likeliest.exp() * likeliest).sum(-1) / math.log(likeliest.shape[-1])


#: by name; None: all tokens alike
LOSSES: dict[str, TokenWeighting | None] = {"nll": None, "dft": dft, "eaft": eaft}
