"""State that a run writes while it goes: events.jsonl, and its progress in run.json."""

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from tunewright import folder
from tunewright.errors import RunError
from tunewright.events import Event, Logged, Notice, RunStarted, StageFinished, StageStarted

EVENTS_FILE = "events.jsonl"
_WARNINGS = 100  # distinct ones that are kept


class StateWriter:
    """Appends every event to events.jsonl, and keeps `running` and `warnings` of run.json.

    state: the content of run.json. With `running` a reader tells a live run from a dead one: stage,
    number, step, total_steps, process id, host and start time. Rank 0 only.
    """

    def __init__(self, path: Path, state: dict[str, Any]) -> None:
        self._path, self._state = path, state
        self._started = time.time()
        self._written = 0.0

    def __call__(self, event: Event) -> None:
        line = json.dumps(folder.finite(event.as_dict()), ensure_ascii=False)
        file = self._path / EVENTS_FILE
        try:
            with file.open("a", encoding="utf-8", errors="replace") as opened:
                opened.write(line + "\n")
        except OSError as error:
            raise RunError(f"cannot be written: {error.strerror}", place=str(file)) from error
        match event:
            case RunStarted():
                process = {"pid": os.getpid(), "host": socket.gethostname()}
                self._state["running"] = {**process, "started": self._started}
            case StageStarted():
                self._state["running"] |= {
                    "stage": event.stage,
                    "number": event.number,
                    "step": event.first_step,
                    "total_steps": event.total_steps,
                }
            case Logged():
                self._state["running"]["step"] = event.step
                if time.monotonic() - self._written < 1:  # seconds: readers poll no more often
                    return
            case Notice(level="warning"):
                self._warn(event.message)
                return
            case StageFinished():
                pass
            case _:
                return
        self._written = time.monotonic()
        folder.save(self._path, self._state, 0)

    def _warn(self, message: str) -> None:
        warnings = self._state.setdefault("warnings", [])
        if message not in warnings and len(warnings) < _WARNINGS:
            warnings.append(message)
