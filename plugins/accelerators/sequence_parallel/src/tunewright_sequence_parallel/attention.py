"""Attention of a sequence that is split over ranks. All tensors are (B, heads, tokens, head size),
as in transformers, and the result is (B, tokens, heads, head size).

L: tokens of a rank; n: ranks; T: tokens of the sequence, at most n L: the last ranks have padding.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.integrations.sdpa_attention import sdpa_attention_forward

__all__ = ["METHODS"]


def ulysses(
    group: Any,
    rank: int,
    length: int,
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    **how: Any,
) -> tuple[Tensor, None]:
    """Attention of some heads over the whole sequence (Jacobs et al. 2023, arXiv:2309.14509).

    query, key, value: of L tokens. mask: (B or 1, 1, T, T), None for a causal one. length: T.
    """
    ranks, own = group.size(), query.shape[2]

    def heads_of_rank(states: Tensor) -> Tensor:
        """(B, H, L, d) of these tokens → (B, H / n, T, d) of these heads."""
        parts = torch.stack(states.chunk(ranks, dim=1))  # (n, B, H / n, L, d)
        return torch.cat(_exchange(parts, group).unbind(), dim=2)[:, :, :length]

    made, _ = sdpa_attention_forward(
        module, heads_of_rank(query), heads_of_rank(key), heads_of_rank(value), mask, **how
    )
    whole = F.pad(made, (0, 0, 0, 0, 0, ranks * own - length))  # (B, n L, H / n, d)
    parts = _exchange(torch.stack(whole.chunk(ranks, dim=1)), group)
    return torch.cat(parts.unbind(), dim=2), None


def allgather(
    group: Any,
    rank: int,
    length: int,
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    **how: Any,
) -> tuple[Tensor, None]:
    """Attention of this rank's queries over all keys and values. Arguments as in `ulysses`."""
    ranks, own = group.size(), query.shape[2]
    start = rank * own

    def gathered(states: Tensor) -> Tensor:
        parts = _exchange(torch.stack([states] * ranks), group)
        return torch.cat(parts.unbind(), dim=2)[:, :, :length]

    if mask is None:
        places = torch.arange(length, device=query.device)
        rows = places <= torch.arange(start, start + own, device=query.device)[:, None]
        rows = rows[None, None]
    else:
        rows = mask[:, :, start : start + own]
        # padding attends to all: a row without any would give NaN
        rows = F.pad(rows, (0, 0, 0, own - rows.shape[2]), value=mask.dtype == torch.bool)
    return sdpa_attention_forward(module, query, gathered(key), gathered(value), rows, **how)


METHODS = {"ulysses": ulysses, "allgather": allgather}


class _Exchange(torch.autograd.Function):
    """All-to-all whose gradient goes back the same way."""

    @staticmethod
    def forward(ctx: Any, parts: Tensor, group: Any) -> Tensor:
        ctx.group = group
        received = torch.empty_like(parts, memory_format=torch.contiguous_format)
        torch.distributed.all_to_all_single(received, parts.contiguous(), group=group)
        return received

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return _Exchange.apply(gradient, ctx.group), None


def _exchange(parts: Tensor, group: Any) -> Tensor:
    """parts: (n, …), the i-th for rank i of the group. Returns (n, …), the i-th from rank i; with
    gradients."""
    made: Tensor = _Exchange.apply(parts, group)
    return made
