"""Steps after which checkpoints are written and evaluations run."""

import math
from collections.abc import Callable

__all__ = ["is_due"]


def is_due(
    epoch_at: Callable[[int], float],
    step: int,
    every: int | None,
    per_epoch: int | None,
) -> bool:
    """Whether something is due after optimizer step `step`: every so many steps, or so often per
    epoch, at the first possible step each time.

    epoch_at: passes over the data after a step.
    """
    if every:
        return step % every == 0
    parts = [math.floor(epoch_at(each) * (per_epoch or 1) + 1e-9) for each in (step - 1, step)]
    return parts[1] > parts[0]
