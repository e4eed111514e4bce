"""Train one part of the parameters at a time.

For optimizers (BAdam) and adapters (LISA) that switch the trained parameters every few steps. This
module does not import torch.
"""

import random
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from tunewright_hf.training.callbacks import TrainingCallback

if TYPE_CHECKING:
    from tunewright_hf.training.loop import TrainingLoop

__all__ = [
    "BlockSwitching",
    "layer_blocks",
    "shuffled",
]


class BlockSwitching(TrainingCallback):
    """Every `interval` steps, train the parameters that `choose` names and freeze the others.

    Gradients and optimizer states of frozen parameters are freed. The choice depends on the step
    and on training.seed alone: all ranks and a resumed run choose alike.

    choose: called with the number of the period (0 is the first) and the seed; returns the names of
    the parameters to train in it. Optimizer states are freed where the optimizer keeps them in
    `state`, by parameter, as those of torch do.
    """

    def __init__(self, interval: int, choose: Callable[[int, int], Collection[str]]) -> None:
        self.interval, self.choose = interval, choose
        self.period = -1

    def on_step_begin(self, loop: "TrainingLoop") -> None:
        period = loop.step // self.interval
        if period == self.period:
            return
        self.period = period
        chosen = set(self.choose(period, loop.training.seed))
        loop.sharding.reshard(loop.model)  # parameters are then those that the optimizer holds
        for name, parameter in loop.trained():
            parameter.requires_grad_(name in chosen)
            if name not in chosen:
                parameter.grad = None
                loop.optimizer.state.pop(parameter, None)


def layer_blocks(names: Iterable[str]) -> tuple[list[list[str]], list[list[str]]]:
    """Group parameter names into blocks: (layers, others), each in the order of the names.

    A layer is what shares the first number of a name: model.layers.3. Others, such as embeddings,
    final norm and head, are a block per module.
    """
    layers: dict[str, list[str]] = {}
    others: dict[str, list[str]] = {}
    for name in names:
        parts = name.split(".")
        number = next((place for place, part in enumerate(parts) if part.isdigit()), None)
        if number is None:
            others.setdefault(name.rpartition(".")[0], []).append(name)
        else:
            layers.setdefault(".".join(parts[: number + 1]), []).append(name)
    return list(layers.values()), list(others.values())


def shuffled(count: int, seed: int, number: int) -> list[int]:
    """Return a random permutation of range(count) that depends on seed and number alone."""
    order = list(range(count))
    random.Random(f"{seed} {number}").shuffle(order)
    return order
