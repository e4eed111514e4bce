"""metrics.jsonl, one JSON object per logging step."""

import json
import math
import os
from pathlib import Path
from typing import Any

from tunewright import Logger, hookimpl
from tunewright.events import Evaluated, Event, Logged, StageStarted
from tunewright.types import RunContext


class Jsonl(Logger):
    """Appends to metrics.jsonl in the run folder: one JSON object per logging step and evaluation.

    Fields: stage, number (of the stage, 1 is the first), step, time and the metrics of the event;
    evaluations also have `eval`, the name of their data set. NaN and infinity are null. When a run
    is resumed, lines after its checkpoint are removed, so that no step appears twice.
    """

    artifacts = ("metrics.jsonl",)

    def __init__(self, options: Any, name: str = "") -> None:
        super().__init__(options, name)
        self._number = 1

    @hookimpl
    def report(self, run: RunContext, event: Event) -> None:
        path = run.folder / "metrics.jsonl"
        match event:
            case StageStarted():
                self._number = event.number
                keep_known(path, event.number, event.first_step)
            case Logged():
                self._write(path, event, {})
            case Evaluated():
                self._write(path, event, {"eval": event.dataset})

    def _write(self, path: Path, event: Logged | Evaluated, more: dict[str, str]) -> None:
        metrics = {
            name: value if math.isfinite(value) else None for name, value in event.metrics.items()
        }
        place = {"stage": event.stage, "number": self._number, "step": event.step}
        line = json.dumps({**place, **more, **metrics, "time": event.time}) + "\n"
        with path.open(
            "a", encoding="utf-8"
        ) as file:  # closed at once, so that readers see whole lines
            file.write(line)


def keep_known(path: Path, number: int, step: int) -> None:
    """Remove the lines of a metrics file after `step` of stage `number`, and an incomplete last
    line. A missing file is fine."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and _place(line) <= (number, step)]
    if kept != lines:
        beside = path.with_name(path.name + ".tmp")
        beside.write_text("".join(kept), encoding="utf-8")
        os.replace(beside, path)


def _place(line: str) -> tuple[int, int]:
    row = json.loads(line)
    return row["number"], row["step"]
