"""Batch sampler for several steps on the same rows."""

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from tunewright import RunError
from tunewright_hf.batching.batch_sampler import Batches


class Repeated(Batches):
    """Repeats the batches of each step `repeats` times. training.max_steps counts all steps, and is
    rounded up to a multiple of `repeats`. At the very end, an incomplete step is dropped."""

    def __init__(
        self, lengths: Sequence[int] | np.ndarray, training: Any, *, repeats: int, **how: Any
    ) -> None:
        if training.max_steps:
            training = training.model_copy(
                update={"max_steps": math.ceil(training.max_steps / repeats)}
            )
        super().__init__(lengths, training, **how)
        self.repeats = repeats
        # steps on new rows
        self._once = super().__len__() // training.gradient_accumulation_steps
        if not self._once:
            hint = "lower training.gradient_accumulation_steps"
            raise RunError(
                f"{len(self.lengths)} rows are too few for a step", place="data", hint=hint
            )
        self.steps = self._once * repeats

    def __len__(self) -> int:
        return self.steps * self.training.gradient_accumulation_steps

    def __iter__(self) -> Iterator[list[int]]:
        passes = super().after(0)
        for _ in range(self._once):
            step = [next(passes) for _ in range(self.training.gradient_accumulation_steps)]
            for _ in range(self.repeats):
                yield from step

    def after(self, passes: int) -> Iterator[list[int]]:
        return islice(iter(self), passes, None)

    def epoch_at(self, step: int) -> float:
        return super().epoch_at(math.ceil(step / self.repeats))

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"repeats": self.repeats}
