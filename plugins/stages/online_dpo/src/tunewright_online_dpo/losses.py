"""Losses of pairs (B,), from margins (B,): the chosen completion's log-ratio to the reference minus
the rejected one's, in nats, summed over tokens. The plugin's options name the sources."""

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import logsigmoid


def sigmoid(margins: Tensor, beta: float) -> Tensor:
    return -logsigmoid(beta * margins)


def ipo(margins: Tensor, beta: float) -> Tensor:
    return (margins - 1 / (2 * beta)) ** 2


LOSSES: dict[str, Callable[[Tensor, float], Tensor]] = {"sigmoid": sigmoid, "ipo": ipo}
