"""One job: the content of its folder."""

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tunewright_web.processes import is_alive

__all__ = ["Job", "Status", "read_job", "read_json"]

Status = Literal[
    "queued", "running", "stopping", "completed", "interrupted", "failed", "lost", "cancelled"
]
_STARTING = 20.0  # seconds that a shepherd may take to write its pid


@dataclass(frozen=True, slots=True)
class Job:
    """One job as its folder says.

    kind: such as train or export. argv: arguments of `tunewright`. output: folder that it writes,
    relative to the workspace. order: place in the queue, seconds. code: exit code, if it has ended.
    """

    id: str
    kind: str
    title: str
    argv: tuple[str, ...]
    output: str | None
    order: float
    created: float
    folder: Path
    started: float | None = None
    slot: str | None = None
    status: Status = "queued"
    code: int | None = None
    ended: float | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        return self.status not in ("queued", "running", "stopping")

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    def last_lines(self, size: int = 4096) -> str:
        """The end of its output."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - size))
                return file.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def error(self) -> str:
        """What the kernel said on why it ended: the last lines that begin with `error:`."""
        lines = [line.rstrip() for line in self.last_lines().splitlines()]
        return "\n".join(line for line in lines if line.startswith("error:"))

    def as_dict(self) -> dict[str, Any]:
        found = asdict(self)
        del found["folder"], found["order"]
        return found


def read_job(folder: Path) -> Job | None:
    """The job of a folder; None if it holds none."""
    values = read_json(folder / "job.json")
    if values is None:
        return None
    known = ("kind", "title", "output", "order", "created", "started", "slot", "about")
    try:
        return Job(
            id=folder.name,
            argv=tuple(values["argv"]),
            folder=folder,
            **{key: values[key] for key in known},
            **_state(folder, values),
        )
    except (KeyError, TypeError):
        return None


def _state(folder: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Status, exit code and end: the file `exit` comes first, then the processes."""
    if (end := read_json(folder / "exit")) is not None:
        code = end.get("code")
        status = end.get("status") or {0: "completed", 130: "interrupted"}.get(code, "failed")
        return {"status": status, "code": code, "ended": end.get("time")}
    if values["started"] is None:
        return {"status": "queued"}
    pids = read_json(folder / "pid")
    if pids is None:
        starting = time.time() - values["started"] < _STARTING
        return {"status": "running" if starting else "lost"}
    known_at = pids.get("time", 0.0)
    if any(is_alive(pids.get(who), known_at) for who in ("shepherd", "child")):
        return {"status": "stopping" if (folder / "stop").exists() else "running"}
    if (end := read_json(folder / "exit")) is not None:  # written since
        return _state(folder, values)
    return {"status": "lost"}


def read_json(path: Path, default: Any = None) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return default
