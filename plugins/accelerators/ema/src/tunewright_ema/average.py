"""The moving average of trained weights, and its exchange with the raw ones."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tunewright import RunError
from tunewright_hf.training.callbacks import TrainingCallback


class WeightAverage(TrainingCallback):
    """After step n (1 is the first): average = d × average + (1 - d) × weights, in float32, with
    d = decay, or with `warmup` the smaller of decay and (1 + n) / (10 + n). It begins with the
    weights before the first step.

    parameters: names and parameters that are trained; all ranks hold them whole.
    """

    def __init__(
        self, parameters: Sequence[tuple[str, torch.nn.Parameter]], decay: float, warmup: bool
    ) -> None:
        self._parameters = dict(parameters)
        self._decay, self._warmup = decay, warmup
        self._average = {
            name: each.detach().to(torch.float32, copy=True)
            for name, each in self._parameters.items()
        }
        self._raw: dict[str, Tensor] | None = None  # while the model has the average

    def attached_to(self, optimizer: Any) -> Any:
        """Make the optimizer one with modes, and return it: `eval` gives the model the average,
        `train` the raw weights back."""
        optimizer.training_callbacks = [*getattr(optimizer, "training_callbacks", ()), self]
        optimizer.eval, optimizer.train = self.use_average, self.use_raw
        return optimizer

    @torch.no_grad()
    def on_step_end(self, loop: Any) -> None:
        decay = self._decay
        if self._warmup:
            decay = min(decay, (1 + loop.step) / (10 + loop.step))
        for name, each in self._parameters.items():
            self._average[name].lerp_(each.detach().float(), 1 - decay)

    @torch.no_grad()
    def use_average(self) -> None:
        if self._raw is None:
            self._raw = {name: each.detach().clone() for name, each in self._parameters.items()}
            for name, each in self._parameters.items():
                each.copy_(self._average[name])

    @torch.no_grad()
    def use_raw(self) -> None:
        if self._raw is not None:
            for name, each in self._parameters.items():
                each.copy_(self._raw[name])
            self._raw = None

    def state_dict(self) -> dict[str, Any]:
        return {"average": self._average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        found = state.get("average", {})
        if found.keys() != self._average.keys():
            hint = "keep the model, the adapter and the accelerators that it began with"
            raise RunError("the checkpoint holds the average of other weights", hint=hint)
        for name, each in self._average.items():
            each.copy_(found[name])
