"""Chunked cross entropy over a large vocabulary: logits of all positions never exist together.

If the loss is one number, its gradient is computed with it, chunk by chunk (as in Hsu et al. 2024,
arXiv:2410.10989): no chunk's logits are kept or computed twice. If the values of single positions
are needed, chunks are recomputed in the backward pass.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

__all__ = [
    "IGNORED",
    "PositionValue",
    "TokenWeighting",
    "label_logp",
    "label_logps",
]

IGNORED = -100  # label of a position that is not trained
GPU_CHUNK = 2**26  # logits per chunk: 256 MiB in fp32
CPU_CHUNK = 2**23  # 32 MiB, which fit in CPU caches
# vocabulary entries scored at a time on a CPU: otherwise BLAS would read the head's weights more
# often than it multiplies by them
TILE = 512
# minimum positions per chunk, whatever the vocabulary: with fewer, reading the head's weights
# dominates
LEAST = 128

Score = Callable[[Tensor], Tensor]  # states (N, D) → logits (N, V)
#: weight of each token's loss, without gradient: (N,) from logits (N, V) and losses (N,), nats
TokenWeighting = Callable[[Tensor, Tensor], Tensor]
#: (N, …) from logits (N, V) in fp32, targets (N,) and further tensors (N, …)
PositionValue = Callable[..., Tensor]


def weighted_sum(
    states: Tensor,
    score: Score,
    targets: Tensor,
    weights: Tensor,
    vocab: int,
    token_weighting: TokenWeighting | None = None,
    parameters: Sequence[Tensor] = (),
    plain: Tensor | None = None,
) -> Tensor:
    """Sum over trained positions of weight × negative log-likelihood (nats), a scalar in fp32.

    states: (B, T, D), from which `score` computes logits (N, V). targets, weights: (B, T), from
    `causal_lm.shift`. token_weighting: further weights, computed from the logits. parameters: those
    of `score`, trained or not. plain: the weights (V, D) if `score` only multiplies by them.
    """
    columns, size = trained_positions(states, targets, weights), _chunk(vocab, states.device)
    if torch.is_grad_enabled() and states.dtype != torch.float16:
        trained = [each for each in parameters if each.requires_grad]
        head = (
            _Plain(plain)
            if plain is not None and _on_a_cpu(plain, states)
            else _Head(score, trained)
        )
        made: Tensor = _Sum.apply(head, token_weighting, size, *columns, *trained)
        return made

    def part(states: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """A chunk with torch's own gradient: fp16 needs the loss scale before the gradient."""
        logits = score(states).float()
        losses = F.cross_entropy(logits, targets, reduction="none")
        return (losses * _weighed(token_weighting, weights, logits, losses)).sum()

    return torch.stack(
        [checkpoint(part, *each, use_reentrant=False) for each in _split(columns, size)]
    ).sum()


def label_logps(states: Tensor, score: Score, targets: Tensor, vocab: int) -> Tensor:
    """Log-probabilities (nats) of the targets (B, T) that are not ignored, row by row: (N,) in
    fp32.

    states: (B, T, D), from which `score` computes logits (N, V).
    """
    return values_at_labels(states, score, targets, vocab, label_logp)


def values_at_labels(
    states: Tensor, score: Score, targets: Tensor, vocab: int, value: PositionValue, *others: Tensor
) -> Tensor:
    """`value` of the logits and targets of all positions that are not ignored, row by row: (N, …).

    states: (B, T, D), from which `score` computes logits (N, V). targets: (B, T). others: (N, …),
    further arguments of `value`.
    """

    def part(states: Tensor, targets: Tensor, *others: Tensor) -> Tensor:
        return value(score(states).float(), targets, *others)

    columns = [*trained_positions(states, targets), *others]
    chunks = _split(columns, _chunk(vocab, states.device))
    if len(chunks) == 1:  # recomputing would save nothing: its backward comes next
        return part(*chunks[0])
    return torch.cat([checkpoint(part, *each, use_reentrant=False) for each in chunks])


def label_logp(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-probability of each target: (N,) from logits (N, V) and targets (N,)."""
    return -F.cross_entropy(logits, targets, reduction="none")


def label_logp_and_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-probability of each target, and the entropy of its distribution: (N, 2)."""
    # a token that is masked out has no probability, and a finite logarithm
    logps = logits.log_softmax(-1).clamp(min=torch.finfo(logits.dtype).min)
    chosen = logps.gather(1, targets[:, None]).squeeze(1)
    return torch.stack([chosen, -(logps.exp() * logps).sum(-1)], 1)


def trained_positions(states: Tensor, targets: Tensor, *others: Tensor) -> list[Tensor]:
    """Select trained positions: states (N, D), targets and others (N,) of states (B, T, D), targets
    and others (B, T)."""
    if states.shape[:-1] != targets.shape:
        raise ValueError(f"states {tuple(states.shape)} of targets {tuple(targets.shape)}")
    trained = (targets != IGNORED).flatten().nonzero().squeeze(1)
    # keep one position with weight 0, so that every parameter gets a gradient on every rank
    if not len(trained):
        trained = trained.new_zeros(1)
    columns = [
        states.flatten(0, 1),
        targets.flatten().clamp(min=0),
        *(each.flatten() for each in others),
    ]
    return [each[trained] for each in columns]


def _chunk(vocab: int, device: torch.device) -> int:
    """Positions per chunk."""
    return max(LEAST, (CPU_CHUNK if device.type == "cpu" else GPU_CHUNK) // vocab)


def _split(columns: Sequence[Tensor], size: int) -> list[tuple[Tensor, ...]]:
    return list(zip(*(each.split(size) for each in columns), strict=True))


def _weighed(
    token_weighting: TokenWeighting | None, weights: Tensor, logits: Tensor, losses: Tensor
) -> Tensor:
    """Weights (N,), multiplied by `token_weighting` of logits (N, V) and losses (N,)."""
    if token_weighting is None:
        return weights
    with torch.no_grad():
        return weights * token_weighting(logits, losses)


class _Head:
    """Any head, differentiated by torch. Its gradients are sums over chunks."""

    def __init__(self, score: Score, parameters: Sequence[Tensor]) -> None:
        self.score, self.parameters = score, parameters
        self.gradients: list[Tensor | None] = [None] * len(parameters)

    def logits(self, states: Tensor) -> Tensor:
        """Logits (N, V) of states (N, D)."""
        self.states = states.detach().requires_grad_()
        with torch.enable_grad():
            self.made = self.score(self.states)
        return self.made.detach()

    def backward(self, gradient: Tensor) -> Tensor:
        """Gradient of the states (N, D), from that of their logits (N, V)."""
        own, *others = torch.autograd.grad(
            self.made, [self.states, *self.parameters], gradient, allow_unused=True
        )
        for number, each in enumerate(others):
            before = self.gradients[number]
            self.gradients[number] = each if before is None or each is None else before.add_(each)
        return own


class _Plain:
    """A plain matrix head on a CPU, computed a few hundred vocabulary entries at a time, with
    gradients accumulated in place: faster than torch's own product and gradient (measured by
    tests/bench/head.py)."""

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights.detach()
        self.gradients = [torch.zeros_like(self.weights)] if weights.requires_grad else []
        self.made = weights.new_empty(0)

    def logits(self, states: Tensor) -> Tensor:
        """Logits (N, V) of states (N, D), in memory that the next chunk overwrites."""
        if len(self.made) < len(states):
            self.made = states.new_empty(len(states), len(self.weights))
        self.states, made = states, self.made[: len(states)]
        for part, weights in zip(made.split(TILE, 1), self.weights.split(TILE), strict=True):
            torch.mm(states, weights.T, out=part)
        return made

    def backward(self, gradient: Tensor) -> Tensor:
        """Gradient of the states (N, D), from that of their logits (N, V)."""
        for each in self.gradients:
            each.addmm_(gradient.T, self.states)
        return gradient @ self.weights


def _on_a_cpu(weights: Tensor, states: Tensor) -> bool:
    """Whether both are fp32 on a CPU and multiplied in fp32."""
    same = (
        weights.dtype == states.dtype == torch.float32
        and weights.device.type == states.device.type == "cpu"
    )
    return same and not torch.is_autocast_enabled("cpu")


class _Sum(torch.autograd.Function):
    """Weighted sum over all chunks; the forward pass also computes its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        head: "_Head | _Plain",
        token_weighting: TokenWeighting | None,
        size: int,
        states: Tensor,
        targets: Tensor,
        weights: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        total = torch.zeros((), device=states.device)
        of_states = []
        for part, target, weight in _split([states, targets, weights], size):
            overwrite = token_weighting is None and isinstance(head, _Plain)
            loss, gradient = (_in_place if overwrite else _loss_and_gradient)(
                head.logits(part), target, weight, token_weighting
            )
            total += loss
            of_states.append(head.backward(gradient))
        ctx.save_for_backward(torch.cat(of_states), *head.gradients)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        # in place, so that the head's gradient exists once: a second backward pass raises, as usual
        made = [None if each is None else each.mul_(gradients[0]) for each in ctx.saved_tensors]
        return None, None, None, made[0], None, None, *made[1:]


def _loss_and_gradient(
    logits: Tensor, targets: Tensor, weights: Tensor, token_weighting: TokenWeighting | None
) -> tuple[Tensor, Tensor]:
    """Return (loss, gradient): the weighted sum of a chunk, a scalar in fp32, and its gradient for
    the logits (N, V), in their dtype."""
    rows = torch.arange(len(targets), device=logits.device)
    wide = logits.float()
    gradient = F.softmax(wide, -1)
    # log-sum-exp, from the computed softmax
    normalizers = wide.amax(-1) - gradient.amax(-1).log()
    losses = normalizers - wide[rows, targets]
    weights = _weighed(token_weighting, weights, wide, losses)
    gradient[rows, targets] -= 1
    gradient *= weights[:, None]
    return (losses * weights).sum(), gradient.to(logits.dtype)


def _in_place(
    logits: Tensor, targets: Tensor, weights: Tensor, _: TokenWeighting | None
) -> tuple[Tensor, Tensor]:
    """Like `_loss_and_gradient`, for fp32 logits that are not needed afterwards: the gradient
    overwrites them."""
    rows = torch.arange(len(targets))
    top, chosen = logits.amax(-1), logits[rows, targets]
    gradient = logits.sub_(top[:, None]).exp_()
    sums = gradient.sum(-1)
    gradient *= (weights / sums)[:, None]
    gradient[rows, targets] -= weights
    return ((top + sums.log() - chosen) * weights).sum(), gradient
