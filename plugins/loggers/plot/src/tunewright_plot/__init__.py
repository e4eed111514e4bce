"""The loss curve as a PNG, and a table of sampled completions."""

import json
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunewright import Logger, hookimpl
from tunewright.events import (
    Evaluated,
    Event,
    Logged,
    RunFinished,
    Sampled,
    Saved,
    StageFinished,
    StageStarted,
)
from tunewright.types import RunContext

LARGEST = 3e38  # about the largest float32; larger values and NaN are not drawn
_SAMPLES = 60  # completions in the table


@dataclass
class Curve:
    """Losses (nats per trained token) of one stage."""

    stage: str
    points: list[tuple[int, float]] = field(default_factory=list)  # (step, loss)
    evals: dict[str, list[tuple[int, float]]] = field(default_factory=dict)  # by data set

    def add(self, step: int, loss: float | None, eval_name: str | None = None) -> None:
        points = self.points if eval_name is None else self.evals.setdefault(eval_name, [])
        if loss is not None and abs(loss) < LARGEST:
            points.append((step, loss))


class Plot(Logger):
    """Draws loss.png in the run folder, at every save and at the end of every stage. For stages
    that generate, also writes samples.html, the newest completions with their rewards.

    A resumed run reads the points before its checkpoint from metrics.jsonl, if it exists.
    """

    artifacts = ("loss.png", "samples.html")

    def __init__(self, options: Any, name: str = "") -> None:
        super().__init__(options, name)
        self._curves: dict[int, Curve] = {}  # number of the stage → its losses
        self._number = 1
        self._samples: deque[Sampled] = deque(maxlen=_SAMPLES)

    @hookimpl
    def report(self, run: RunContext, event: Event) -> None:
        folder: Path = run.folder
        match event:
            case StageStarted():
                if not self._curves:
                    self._curves = earlier_curves(
                        folder / "metrics.jsonl", event.number, event.first_step
                    )
                self._number = event.number
            case Logged():
                self._add(event, None)
            case Evaluated():
                self._add(event, event.dataset)
            case Sampled():
                self._samples.append(event)
            case Saved() | StageFinished() | RunFinished():
                self._draw(folder / "loss.png")
                self._write_samples(folder / "samples.html")

    def _add(self, event: Logged | Evaluated, eval_name: str | None) -> None:
        curve = self._curves.setdefault(self._number, Curve(event.stage))
        curve.add(event.step, event.metrics.get("loss"), eval_name)

    def _draw(self, path: Path) -> None:
        if curves := [curve for curve in self._curves.values() if curve.points]:
            from tunewright_plot.draw import draw

            draw(curves, path)

    def _write_samples(self, path: Path) -> None:
        if self._samples:
            from tunewright_plot.samples import write

            write(self._samples, path)


def earlier_curves(path: Path, number: int, step: int) -> dict[int, Curve]:
    """Curves of a metrics file up to `step` of stage `number`."""
    curves: dict[int, Curve] = {}
    if not path.exists():
        return curves
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n"):  # incomplete: the run was killed
            continue
        row = json.loads(line)
        if (row["number"], row["step"]) <= (number, step):
            curve = curves.setdefault(row["number"], Curve(row["stage"]))
            curve.add(row["step"], row.get("loss"), row.get("eval"))
    return curves
