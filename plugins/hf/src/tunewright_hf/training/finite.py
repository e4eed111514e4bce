"""Checks for losses, gradients and weights that are not finite."""

import math
from pathlib import Path

from tunewright import RunError
from tunewright.events import Notice
from tunewright.types import RunContext
from tunewright_hf.checkpoints.folder import latest_checkpoint

_HELP = "lower training.learning_rate, or raise training.warmup_steps; with fp16 try bf16"


class FiniteGuard:
    """Counts steps in a row whose loss or gradient norm is not finite, and ends the run after
    `max_bad_steps` of them. Its inputs must be the same on all ranks."""

    def __init__(self, run: RunContext, max_bad_steps: int, checkpoints: Path) -> None:
        self.run, self.max_bad_steps, self.checkpoints = run, max_bad_steps, checkpoints
        self.bad_steps = 0  # in a row

    def is_finite(self, step: int, loss: float, norm: float | None, *, updated: bool) -> bool:
        """Whether loss and gradients of a step are finite. step: 1 is the first. norm: None if
        unknown. updated: whether the update was made before this was known. Raises RunError after
        too many bad steps."""
        found = {"loss": loss} | ({} if norm is None else {"gradient norm": norm})
        bad = [f"{name} is {value}" for name, value in found.items() if not math.isfinite(value)]
        if not bad:
            self.bad_steps = 0
            return True
        self.bad_steps += 1
        if self.bad_steps >= self.max_bad_steps:
            count = "once" if self.bad_steps == 1 else f"{self.bad_steps} times in a row"
            raise RunError(f"{bad[0]}, {count}; {self._last()}", place=f"step {step}", hint=_HELP)
        if self.bad_steps == 1:
            message = f"step {step}: {bad[0]}" + ("" if updated else ": the update is left out")
            self.run.emit(Notice(message=message, level="warning"))
        return False

    def bad_weights(self, step: int) -> RunError:
        """Error for weights that are not finite, for which no checkpoint is written."""
        return RunError(
            f"trained weights are not finite; {self._last()}", place=f"step {step}", hint=_HELP
        )

    def _last(self) -> str:
        found = latest_checkpoint(self.checkpoints)
        return f"last finite checkpoint: {found}" if found else "no checkpoint was saved before"
