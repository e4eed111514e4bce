"""One trial: a process of `tunewright train`, and the evaluations of its run."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Ended", "Metric", "run_trial"]

_PAUSE = 0.3  # seconds between two looks at the events
_COMPLETED, _INTERRUPTED = 0, 130  # exit codes


@dataclass(frozen=True)
class Metric:
    """Measure by which trials are compared. of: the evaluation set; empty: the result of
    training."""

    of: str
    name: str
    rises: bool
    stage: int  # number of the stage that is judged, 1 is the first

    def __str__(self) -> str:
        return f"{self.of}_{self.name}" if self.of else self.name

    def better(self, value: float, than: float | None) -> bool:
        return than is None or (value > than if self.rises else value < than)


@dataclass
class Ended:
    """Outcome of a trial. state: complete, pruned, failed or stopped. value: of its best
    evaluation."""

    state: str = "failed"
    value: float | None = None
    step: int = 0  # of that evaluation
    error: str = ""
    seconds: float = 0.0


@dataclass
class _Events:
    """Reads events.jsonl while it grows. Of a step that a resumed run repeats, the later one
    counts."""

    path: Path
    metric: Metric
    at: int = 0  # bytes read
    stage: int = 0
    values: dict[int, float] = field(default_factory=dict)  # step → value

    def new(self) -> Iterator[tuple[int, float]]:
        """(step, value) of each evaluation since the last call."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            file.seek(self.at)
            for line in file:
                if not line.endswith(b"\n"):  # being written
                    return
                self.at += len(line)
                if (found := self._value(json.loads(line))) is not None:
                    self.values[found[0]] = found[1]
                    yield found

    def _value(self, event: Mapping[str, Any]) -> tuple[int, float] | None:
        metric = self.metric
        if event["event"] == "StageStarted":
            self.stage = event["number"]
        if self.stage != metric.stage:
            return None
        if metric.of and event["event"] == "Evaluated" and event["dataset"] == metric.of:
            step = event["step"]
        elif not metric.of and event["event"] == "StageFinished":
            step = event["steps"]
        else:
            return None
        value = event["metrics"].get(metric.name)
        return None if value is None or not math.isfinite(value) else (step, float(value))

    def best(self) -> tuple[int, float] | None:
        best = None
        for step, value in self.values.items():
            if best is None or self.metric.better(value, best[1]):
                best = (step, value)
        return best


def run_trial(
    arguments: list[str],
    folder: Path,
    metric: Metric,
    environment: Mapping[str, str],
    worse: Callable[[int, float], bool],
    stopping: Callable[[], bool],
    kill: threading.Event,
) -> Ended:
    """Train, and wait.

    arguments: of `tunewright train`. folder: of the run. worse: told each step and value, it says
    whether to end the trial. stopping: whether the sweep was asked to stop; the run then saves.
    kill: ends it at once.
    """
    began, events = time.monotonic(), _Events(folder / "events.jsonl", metric)
    log = folder.with_suffix(".log")
    command = [sys.executable, "-m", "tunewright", "train", *arguments]
    pruned = False
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **environment},
            start_new_session=True,  # Ctrl-C is passed on once, by us
        )
        asked = False
        try:
            while process.poll() is None:
                time.sleep(_PAUSE)
                for found in events.new():
                    pruned = worse(*found) or pruned
                if kill.is_set():
                    process.kill()
                elif (pruned or stopping()) and not asked:
                    asked = True
                    process.send_signal(signal.SIGTERM)
        except BaseException:
            process.kill()
            process.wait()
            raise
    for found in events.new():
        worse(*found)
    ended = Ended(seconds=time.monotonic() - began)
    if best := events.best():
        ended.step, ended.value = best
    if process.returncode == _COMPLETED:
        ended.state = "complete"
        if ended.value is None:
            ended.state, ended.error = "failed", f"no evaluation gave {metric}"
    elif process.returncode == _INTERRUPTED and asked:
        ended.state = "pruned" if pruned else "stopped"
    else:
        ended.error = _last_error(log) or f"ended with exit code {process.returncode}"
    return ended


def _last_error(log: Path) -> str:
    """The last line of a log that begins with `error:`, without it."""
    lines = log.read_text("utf-8", errors="replace").splitlines()
    said = [line.removeprefix("error:").strip() for line in lines if line.startswith("error:")]
    return said[-1] if said else ""
