"""State that all requests share: workspace, jobs, runs, and the options of the command."""

from dataclasses import dataclass, field
from pathlib import Path

from tunewright_web.jobs import Jobs
from tunewright_web.runs import Runs
from tunewright_web.workspace import Workspace

__all__ = ["Web"]


@dataclass(slots=True)
class Web:
    """trusted: models whose code may run. slots: devices of jobs, as in CUDA_VISIBLE_DEVICES.
    token_file: where the token is. port: 0 until the server listens."""

    workspace: Workspace
    trusted: tuple[str, ...] = ()
    slots: tuple[str, ...] = ("",)
    token_file: Path = field(default_factory=Path)
    port: int = 0
    jobs: Jobs = field(init=False)
    runs: Runs = field(init=False)

    def __post_init__(self) -> None:
        self.jobs = Jobs(self.workspace, self.slots)
        self.runs = Runs(self.workspace, self.jobs)
