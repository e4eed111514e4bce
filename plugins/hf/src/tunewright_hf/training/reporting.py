"""Events of a training, for the loggers."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil  # type: ignore[import-untyped]
import torch

from tunewright import events
from tunewright.types import RunContext

if TYPE_CHECKING:
    from tunewright_hf.training.loop import TrainingLoop


class Reporter:
    """Emits events during training, on rank 0 only. stage: its name in events."""

    def __init__(self, run: RunContext, stage: str) -> None:
        self.run, self.stage = run, stage
        self._time, self._tokens = 0.0, 0  # at the last log

    def emit(self, kind: Callable[..., events.Event], **fields: Any) -> None:
        if self.run.rank == 0:
            self.run.emit(kind(stage=self.stage, **fields))

    def notice(self, message: str, level: str = "info") -> None:
        if self.run.rank == 0:
            self.run.emit(events.Notice(message=message, level=level))

    def started(self, loop: "TrainingLoop") -> None:
        self._time, self._tokens = time.monotonic(), loop.trainer.progress["tokens"]
        if loop.trainer.keeps_all_logits:
            slow = (
                "this model makes its logits in a way of its own: the loss keeps all of "
                "them in memory"
            )
            self.notice(slow, "warning")
        self.emit(
            events.StageStarted,
            number=loop.request.number,
            of=len(self.run.recipe.stages),
            total_steps=loop.total_steps,
            first_step=loop.step,
            rows=len(loop.request.data.train),
            **loop.parameter_counts,
        )

    def logged(self, loop: "TrainingLoop", metrics: dict[str, float]) -> None:
        """Emit metrics, with speed and memory."""
        now, tokens = time.monotonic(), loop.trainer.progress["tokens"]
        metrics |= {
            "tokens": tokens,
            "tokens_per_second": (tokens - self._tokens) / (now - self._time),
            "memory": memory(loop.trainer.device),
        }
        self._time, self._tokens = now, tokens
        self.emit(events.Logged, step=loop.step, total_steps=loop.total_steps, metrics=metrics)

    def saved(self, step: int, path: Path) -> None:
        below = path.relative_to(Path(self.run.folder)).as_posix()
        self.emit(events.Saved, step=step, path=below)


def memory(device: torch.device) -> int:
    """Memory in bytes: the peak of a GPU, or the process's current use on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return psutil.Process().memory_info().rss  # type: ignore[no-any-return]
