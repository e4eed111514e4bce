"""Callbacks of the training loop, for adapters and optimizers that act during training."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunewright_hf.training.loop import TrainingLoop

__all__ = ["TrainingCallback"]


class TrainingCallback:
    """Acts at defined points of training. Every method does nothing by default.

    An optimizer or a model lists its callbacks in the attribute `training_callbacks`: an optimizer
    plugin sets it on the torch optimizer that it builds, an adapter plugin on `LoadedModel.model`.
    The loop calls those of the model first, then those of the stage, on every rank.

    Order in a step: on_step_begin, forward and backward passes, on_gradients_ready, clipping, the
    optimizer's update, on_step_end, gradients are freed, evaluation, save. If the update is skipped
    because loss or gradients are not finite, all of them are still called.
    """

    def on_step_begin(self, loop: "TrainingLoop") -> None:
        """Before the forward passes of a step, after rollouts. `loop.step`: optimizer steps done so
        far."""

    def on_gradients_ready(self, loop: "TrainingLoop") -> None:
        """Called after the backward passes of a step, before clipping. Gradients may be changed."""

    def on_step_end(self, loop: "TrainingLoop") -> None:
        """Called after the update, while gradients still exist. `loop.step` includes this step."""

    def on_evaluate(self, loop: "TrainingLoop", metrics: dict[str, dict[str, float]]) -> None:
        """Called after an evaluation. metrics: by evaluation set and name."""

    def on_save(self, loop: "TrainingLoop", folder: Path) -> None:
        """Called after a checkpoint was written to `folder`."""

    def logged(self) -> dict[str, float]:
        """Further metrics for the log, by name."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """State for the checkpoint: dicts, lists, tensors, numbers and text."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the state of a checkpoint, after weights and optimizer were loaded."""


def callbacks_of(*owners: Any) -> Iterator[TrainingCallback]:
    """Yield the callbacks that the owners list, in order. Not every owner has the attribute."""
    for owner in owners:
        yield from getattr(owner, "training_callbacks", ())
