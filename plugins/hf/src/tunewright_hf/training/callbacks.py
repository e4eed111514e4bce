"""The named moments of a training, for adapters and optimizers that act then."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunewright_hf.training.loop import TrainingLoop


class TrainingCallback:
    """Acts at named moments of a training. Every method does nothing by default.

    An optimizer or a model that has callbacks lists them in its attribute `training_callbacks`: an
    optimizer plugin sets it on the torch optimizer that it builds, an adapter plugin on
    `LoadedModel.model`. The loop calls those of the model first, on every rank.

    Moments of a step, in order: on_step_begin, forward and backward passes, on_gradients_ready,
    clipping, the optimizer's update, on_step_end, gradients are freed, evaluation, save. An update
    that is left out because a gradient is not finite skips on_gradients_ready.
    """

    def on_step_begin(self, loop: "TrainingLoop") -> None:
        """Before the batches of a step are drawn. `loop.step`: optimizer steps done so far."""

    def on_gradients_ready(self, loop: "TrainingLoop") -> None:
        """After the backward passes of a step, before clipping. Gradients may be changed."""

    def on_step_end(self, loop: "TrainingLoop") -> None:
        """After the update; gradients are still there. `loop.step` counts this step."""

    def on_evaluate(self, loop: "TrainingLoop", metrics: dict[str, dict[str, float]]) -> None:
        """After an evaluation. metrics: by evaluation set and name."""

    def on_save(self, loop: "TrainingLoop", folder: Path) -> None:
        """After a checkpoint was written to `folder`."""

    def state_dict(self) -> dict[str, Any]:
        """State that a checkpoint keeps: dicts, lists, tensors, numbers and text."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint, after weights and optimizer have theirs."""


def callbacks_of(*owners: Any) -> Iterator[TrainingCallback]:
    """The callbacks that the owners list, in order. Only some have the attribute."""
    for owner in owners:
        yield from getattr(owner, "training_callbacks", ())
