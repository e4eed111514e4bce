"""One run, as its folder and its job say."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Run"]


@dataclass(frozen=True, slots=True)
class Run:
    """A run as its folder and its job say.

    status: queued, running, stopping, completed, interrupted, failed, or lost, if its process is
    gone without a word. step, total_steps: of the stage that has begun last. loss: the last.
    updated: seconds since 1970. error: what ended it, or what is wrong with its folder. here: its
    process is on this machine. is_ending: it is done, but the process of its job is not gone yet.
    """

    name: str
    folder: Path
    status: str
    model: str = ""
    adapter: str = ""
    stages: tuple[str, ...] = ()
    stage: str = ""
    step: int | None = None
    total_steps: int | None = None
    loss: float | None = None
    updated: float = 0.0
    job: str | None = None
    code: int | None = None
    error: str = ""
    warnings: tuple[str, ...] = ()
    pid: int | None = None
    here: bool = False
    is_ending: bool = False
    state: dict[str, Any] = field(default_factory=dict, repr=False)  # run.json

    @property
    def is_active(self) -> bool:
        return self.status in ("queued", "running", "stopping")

    @property
    def shown_status(self) -> str:
        """The status, with an exit code that says more."""
        return f"failed ({self.code})" if self.status == "failed" and self.code else self.status

    @property
    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        found = self.folder.glob("checkpoints/step-*/manifest.json")
        found_in_stages = self.folder.glob("stages/*/checkpoints/step-*/manifest.json")
        paths = [path.parent for path in (*found, *found_in_stages)]
        return sorted(paths, key=lambda path: (path.parent.parent.name, _step_of(path)))

    @property
    def can_stop(self) -> bool:
        is_own = self.job is not None or (self.pid is not None and self.here)
        return self.status in ("running", "stopping") and is_own

    @property
    def can_resume(self) -> bool:
        """Whether --resume goes on: a stage is done, or there is a checkpoint."""
        ended = self.status in ("interrupted", "failed", "lost") and not self.is_ending
        return ended and bool(self.state) and bool(self.state.get("stages") or self.checkpoints)

    @property
    def has_model(self) -> bool:
        return bool(self.state.get("stages"))

    def as_dict(self) -> dict[str, Any]:
        found = asdict(self)
        del found["folder"], found["state"]
        return found | {"can_stop": self.can_stop, "can_resume": self.can_resume}


def _step_of(path: Path) -> int:
    digits = path.name.removeprefix("step-")
    return int(digits) if digits.isdecimal() else 0
