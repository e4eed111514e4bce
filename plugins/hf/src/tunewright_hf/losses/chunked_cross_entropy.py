"""Cross entropy over a large vocabulary, some positions at a time: logits of all of them never
exist.

Where the loss is one number, its gradient is made together with it, chunk by chunk (as Hsu et al.
2024, arXiv:2410.10989, do it): no chunk's logits are kept, and none are made twice. Where each
position's number goes on by itself, chunks are made again in the backward pass.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

__all__ = [
    "IGNORED",
    "TokenWeighting",
    "label_logps",
]

IGNORED = -100  # label of a position that is not trained
GPU_CHUNK = 2**26  # logits that exist at a time: 256 MiB in fp32
CPU_CHUNK = 2**23  # 32 MiB, which caches hold
# words scored at a time on a CPU: BLAS would read the head's weights more often than it multiplies
TILE = 512
# positions of a chunk, however many logits they have: with fewer, moving the head's weights costs
# more
LEAST = 128

Score = Callable[[Tensor], Tensor]  # states (N, D) → logits (N, V)
#: what each token's loss is multiplied by, without gradient: (N,) from logits (N, V) and losses
#: (N,), nats
TokenWeighting = Callable[[Tensor, Tensor], Tensor]


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

    states: (B, T, D), of which `score` makes logits (N, V). targets, weights: (B, T), as
    `loss.shift` makes them. weigh: further weights, of what the model says itself. parameters:
    those of `score`, trained or not. plain: the weights (V, D) of a `score` that multiplies by them
    and does nothing else.
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
        """With torch's own gradient: in fp16 it needs the factor that comes after the loss."""
        logits = score(states).float()
        losses = F.cross_entropy(logits, targets, reduction="none")
        return (losses * _weighed(token_weighting, weights, logits, losses)).sum()

    return torch.stack(
        [checkpoint(part, *each, use_reentrant=False) for each in _split(columns, size)]
    ).sum()


def label_logps(states: Tensor, score: Score, targets: Tensor, vocab: int) -> Tensor:
    """Log-probabilities (nats) of the targets (B, T) that are not ignored, row by row: (N,) in
    fp32.

    states: (B, T, D), of which `score` makes logits (N, V).
    """

    def part(states: Tensor, targets: Tensor) -> Tensor:
        return -F.cross_entropy(score(states).float(), targets, reduction="none")

    chunks = _split(trained_positions(states, targets), _chunk(vocab, states.device))
    if len(chunks) == 1:  # nothing to win from making it again: its backward comes next
        return part(*chunks[0])
    return torch.cat([checkpoint(part, *each, use_reentrant=False) for each in chunks])


def trained_positions(states: Tensor, targets: Tensor, *others: Tensor) -> list[Tensor]:
    """states (N, D), targets and others (N,) of the trained positions of states (B, T, D), targets
    and others (B, T)."""
    if states.shape[:-1] != targets.shape:
        raise ValueError(f"states {tuple(states.shape)} of targets {tuple(targets.shape)}")
    trained = (targets != IGNORED).flatten().nonzero().squeeze(1)
    if not len(
        trained
    ):  # one position of weight 0, so that every parameter gets a gradient on every process
        trained = trained.new_zeros(1)
    columns = [
        states.flatten(0, 1),
        targets.flatten().clamp(min=0),
        *(each.flatten() for each in others),
    ]
    return [each[trained] for each in columns]


def _chunk(vocab: int, device: torch.device) -> int:
    """Positions of a chunk."""
    return max(LEAST, (CPU_CHUNK if device.type == "cpu" else GPU_CHUNK) // vocab)


def _split(columns: Sequence[Tensor], size: int) -> list[tuple[Tensor, ...]]:
    return list(zip(*(each.split(size) for each in columns), strict=True))


def _weighed(
    token_weighting: TokenWeighting | None, weights: Tensor, logits: Tensor, losses: Tensor
) -> Tensor:
    """The weights (N,), times what `weigh` says of the logits (N, V) and losses (N,)."""
    if token_weighting is None:
        return weights
    with torch.no_grad():
        return weights * token_weighting(logits, losses)


class _Head:
    """A head of any kind, which torch differentiates. Its gradients are sums over chunks."""

    def __init__(self, score: Score, parameters: Sequence[Tensor]) -> None:
        self.score, self.parameters = score, parameters
        self.gradients: list[Tensor | None] = [None] * len(parameters)

    def logits(self, states: Tensor) -> Tensor:
        """(N, V) of states (N, D)."""
        self.states = states.detach().requires_grad_()
        with torch.enable_grad():
            self.made = self.score(self.states)
        return self.made.detach()

    def backward(self, gradient: Tensor) -> Tensor:
        """The gradient of the states (N, D), of that of their logits (N, V)."""
        own, *others = torch.autograd.grad(
            self.made, [self.states, *self.parameters], gradient, allow_unused=True
        )
        for number, each in enumerate(others):
            before = self.gradients[number]
            self.gradients[number] = each if before is None or each is None else before.add_(each)
        return own


class _Plain:
    """A head that is a matrix, on a CPU: a few hundred of its words at a time, and gradients added
    in place, which is faster than torch's own product and gradient (tests/bench/head.py says by how
    much)."""

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights.detach()
        self.gradients = [torch.zeros_like(self.weights)] if weights.requires_grad else []
        self.made = weights.new_empty(0)

    def logits(self, states: Tensor) -> Tensor:
        """(N, V) of states (N, D), in memory that the next chunk's take over."""
        if len(self.made) < len(states):
            self.made = states.new_empty(len(states), len(self.weights))
        self.states, made = states, self.made[: len(states)]
        for part, weights in zip(made.split(TILE, 1), self.weights.split(TILE), strict=True):
            torch.mm(states, weights.T, out=part)
        return made

    def backward(self, gradient: Tensor) -> Tensor:
        """The gradient of the states (N, D), of that of their logits (N, V)."""
        for each in self.gradients:
            each.addmm_(gradient.T, self.states)
        return gradient @ self.weights


def _on_a_cpu(weights: Tensor, states: Tensor) -> bool:
    """Whether both are fp32 in a CPU's memory, and multiplied as such."""
    same = (
        weights.dtype == states.dtype == torch.float32
        and weights.device.type == states.device.type == "cpu"
    )
    return same and not torch.is_autocast_enabled("cpu")


class _Sum(torch.autograd.Function):
    """The weighted sum over all chunks, with a gradient that is made with it."""

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
        # in place, so that the head's gradient is there once: a second backward pass raises, as it
        # does elsewhere
        made = [None if each is None else each.mul_(gradients[0]) for each in ctx.saved_tensors]
        return None, None, None, made[0], None, None, *made[1:]


def _loss_and_gradient(
    logits: Tensor, targets: Tensor, weights: Tensor, token_weighting: TokenWeighting | None
) -> tuple[Tensor, Tensor]:
    """(loss, gradient): the weighted sum of a chunk, a scalar in fp32, and what it does to logits
    (N, V), in their format."""
    rows = torch.arange(len(targets), device=logits.device)
    wide = logits.float()
    gradient = F.softmax(wide, -1)
    # log of the sum of exponentials, of what softmax has already made
    normalizers = wide.amax(-1) - gradient.amax(-1).log()
    losses = normalizers - wide[rows, targets]
    weights = _weighed(token_weighting, weights, wide, losses)
    gradient[rows, targets] -= 1
    gradient *= weights[:, None]
    return (losses * weights).sum(), gradient.to(logits.dtype)


def _in_place(
    logits: Tensor, targets: Tensor, weights: Tensor, _: TokenWeighting | None
) -> tuple[Tensor, Tensor]:
    """The same where the logits are in fp32 and nobody needs them any more: the gradient takes
    their memory."""
    rows = torch.arange(len(targets))
    top, chosen = logits.amax(-1), logits[rows, targets]
    gradient = logits.sub_(top[:, None]).exp_()
    sums = gradient.sum(-1)
    gradient *= (weights / sums)[:, None]
    gradient[rows, targets] -= weights
    return ((top + sums.log() - chosen) * weights).sum(), gradient
