"""Contrastive losses and metrics of retrieval. Q queries, D documents, vectors of E numbers."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

_HIDDEN = -1e4  # added to logits that do not count: their probability is 0
_TOP = 10  # documents of a ranking that count


def info_nce(
    queries: Tensor,
    documents: Tensor,
    fitting: Tensor,
    same: Tensor,
    temperature: float,
    lengths: Sequence[int] = (),
    symmetric: bool = False,
) -> Tensor:
    """Losses (Q,), nats: the negative log-probability of each query's own document among all.

    queries: (Q, E). documents: (D, E). fitting: index (Q,) of each query's document. same: (Q, D),
    documents with the same text as the query's own one, which do not count against it. lengths: of
    shorter vectors, whose losses are averaged with that of the whole ones. symmetric: mean with the
    loss of finding the query of each fitting document.
    """
    own = torch.zeros_like(same).scatter(1, fitting[:, None], True)
    hidden = _HIDDEN * (same & ~own)
    losses = []
    for length in (*lengths, queries.shape[1]):
        one, other = (normalize(each[:, :length], dim=1) for each in (queries, documents))
        logits = one @ other.T / temperature + hidden  # (Q, D)
        loss = cross_entropy(logits, fitting, reduction="none")
        if symmetric:
            back = logits[:, fitting].T  # (Q, Q): row n has document n
            target = torch.arange(len(back), device=back.device)
            loss = (loss + cross_entropy(back, target, reduction="none")) / 2
        losses.append(loss)
    return torch.stack(losses).mean(0)


def ranking_metrics(scores: Tensor, fitting: Tensor, same: Tensor) -> dict[str, Tensor]:
    """Metrics (Q,) of each query's own document among all, by scores (Q, D): accuracy (is it the
    first), mrr@10 and ndcg@10. fitting, same: as `info_nce`."""
    own = scores.gather(1, fitting[:, None])
    rank = ((scores > own) & ~same).sum(1)  # 0 is the first
    counts = (rank < _TOP).float()
    return {
        "accuracy": (rank == 0).float(),
        "mrr@10": counts / (rank + 1),
        "ndcg@10": counts / torch.log2(rank + 2.0),
    }
