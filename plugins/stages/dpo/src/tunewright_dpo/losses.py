"""Pairwise losses with a reference: (B,) from log-ratios (2, B).

A log-ratio is the log-probability of an answer minus that of the reference, in nats; chosen answers
first. The plugin's options name the sources.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid


@dataclass
class Ratios:
    sums: Tensor  # (2, B), summed over the tokens of an answer
    means: Tensor  # (2, B), per token
    mean_reward: float = 0.0  # mean over all answers of earlier steps


def sigmoid(ratios: Ratios, beta: float, smoothing: float) -> Tensor:
    margin = beta * (ratios.sums[0] - ratios.sums[1])
    return -(1 - smoothing) * logsigmoid(margin) - smoothing * logsigmoid(-margin)


def sigmoid_norm(ratios: Ratios, beta: float, smoothing: float) -> Tensor:
    return -logsigmoid(beta * (ratios.means[0] - ratios.means[1]))


def hinge(ratios: Ratios, beta: float, smoothing: float) -> Tensor:
    return (1 - beta * (ratios.sums[0] - ratios.sums[1])).relu()


def ipo(ratios: Ratios, beta: float, smoothing: float) -> Tensor:
    return (ratios.means[0] - ratios.means[1] - 1 / (2 * beta)) ** 2


def robust(ratios: Ratios, beta: float, smoothing: float) -> Tensor:
    margin = beta * (ratios.sums[0] - ratios.sums[1])
    return (-(1 - smoothing) * logsigmoid(margin) + smoothing * logsigmoid(-margin)) / (
        1 - 2 * smoothing
    )


def bco_pair(ratios: Ratios, beta: float, smoothing: float) -> Tensor:
    chosen, rejected = beta * ratios.sums - ratios.mean_reward
    return -logsigmoid(chosen) - logsigmoid(-rejected)


def exo_pair(ratios: Ratios, beta: float, smoothing: float) -> Tensor:
    """KL divergence of the model's preferences from (1 - smoothing, smoothing)."""
    margin = beta * (ratios.sums[0] - ratios.sums[1])
    wanted = margin.new_tensor([1 - smoothing, smoothing]).log()
    return margin.sigmoid() * (logsigmoid(margin) - wanted[0]) + (-margin).sigmoid() * (
        logsigmoid(-margin) - wanted[1]
    )


def nca_pair(ratios: Ratios, beta: float, smoothing: float) -> Tensor:
    chosen, rejected = beta * ratios.sums
    return -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)


def apo_zero(ratios: Ratios, beta: float, smoothing: float) -> Tensor:
    chosen, rejected = beta * ratios.sums
    return 1 - chosen.sigmoid() + rejected.sigmoid()


def apo_down(ratios: Ratios, beta: float, smoothing: float) -> Tensor:
    chosen, rejected = beta * ratios.sums
    return chosen.sigmoid() + 1 - (chosen - rejected).sigmoid()


def sppo_hard(ratios: Ratios, beta: float, smoothing: float) -> Tensor:
    chosen, rejected = ratios.sums
    return (chosen - 0.5 / beta) ** 2 + (rejected + 0.5 / beta) ** 2


LOSSES: dict[str, Callable[[Ratios, float, float], Tensor]] = {
    loss.__name__: loss
    for loss in (
        sigmoid,
        sigmoid_norm,
        hinge,
        ipo,
        robust,
        bco_pair,
        exo_pair,
        nca_pair,
        apo_zero,
        apo_down,
        sppo_hard,
    )
}
