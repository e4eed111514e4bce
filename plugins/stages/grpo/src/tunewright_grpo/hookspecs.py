"""Hooks of the kind that `grpo` calls: environment."""

from tunewright.hookspecs import hookspec
from tunewright.types import RunContext
from tunewright_grpo.environment import Observation, ResetRequest, Start, StepRequest


@hookspec(firstresult=True)
def reset(run: RunContext, request: ResetRequest) -> Start:
    """Begin an episode. Kind: environment.

    When: before the first turn of each completion, in training and evaluation, on each rank for its
    own completions.

    Raises RunError if it cannot begin.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def step(run: RunContext, request: StepRequest) -> Observation:
    """Answer a turn of the model. Kind: environment.

    When: after each turn that was not truncated. Turns of different episodes come in their order,
    or, where the environment is `concurrent`, at the same time.

    Raises RunError if the environment itself fails; what the model did wrong is an observation.
    """
    raise NotImplementedError
