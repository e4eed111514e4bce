"""Hooks of the kinds that tunewright-hf calls: scheduler and reward."""

from typing import TYPE_CHECKING

from tunewright.hookspecs import hookspec
from tunewright.types import RunContext

if TYPE_CHECKING:
    from typing import Any

    from tunewright import types


@hookspec(firstresult=True)
def build_scheduler(run: RunContext, request: "types.SchedulerRequest") -> "Any":
    """Build a torch.optim.lr_scheduler.LRScheduler over request.optimizer. Kind: scheduler.

    When: once for each stage, after build_optimizer. The loop calls its step() after each optimizer
    step.

    request.total_steps, request.warmup_steps: optimizer steps; warm-up is part of the total.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def score(run: RunContext, request: "types.RewardRequest") -> "list[float | None]":
    """Score completions. Kind: reward.

    When: for each batch of completions that the policy has generated, in training and evaluation,
    on each rank for its own completions.

    Returns one number for each completion; None if the reward does not apply to it.

    Raises RecipeError if a column is missing.
    """
    raise NotImplementedError
