"""Losses and metrics of one query's documents, by their scores (D,), the fitting one first."""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, relu, softplus

_TOP = 10  # documents of a ranking that count


def ranking_loss(scores: Tensor, loss: str, margin: float) -> Tensor:
    """The loss of these documents, a scalar: see Rerank.Options. Pairs and points are averaged."""
    own, others = scores[:1], scores[1:]
    fits = torch.zeros_like(scores)
    fits[0] = 1
    if loss == "softmax":
        return torch.logsumexp(scores, 0) - scores[0]
    if loss == "listnet":
        return cross_entropy(scores[None], fits.softmax(0)[None])
    if loss == "ranknet":
        return softplus(others - own).mean()
    if loss == "margin":
        return relu(margin - own + others).mean()
    return binary_cross_entropy_with_logits(scores, fits)


def ranking_metrics(scores: Tensor) -> dict[str, float]:
    """accuracy (is the fitting document the first), mrr@10 and ndcg@10. Of equal scores it is the
    last."""
    rank = int((scores[1:] >= scores[0]).sum())  # 0 is the first
    counts = float(rank < _TOP)
    return {
        "accuracy": float(rank == 0),
        "mrr@10": counts / (rank + 1),
        "ndcg@10": counts / float(torch.tensor(rank + 2.0).log2()),
    }
