"""Base class of loggers that send a run to an experiment tracker.

    class Weave(Tracker):
        library = "weave"

        def open(self, start: TrackerStart) -> str:
            import weave

            self._run = weave.init(start.project, id=start.run_id, config=start.config)
            return self._run.id

        def log(self, step: int, metrics: dict[str, float]) -> None:
            self._run.log(metrics, step=step)

All of these methods are called in the logger's own thread: a tracker that is down or slow holds up
no run. What they raise mutes the logger.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from tunewright import events
from tunewright.errors import Problem
from tunewright.hookspecs import hookimpl
from tunewright.plugin import Logger, PluginOptions

if TYPE_CHECKING:
    from tunewright.check import Resolved
    from tunewright.types import RunContext

__all__ = ["Tracker", "TrackerOptions", "TrackerStart"]


class TrackerOptions(PluginOptions):
    """Options of every tracker."""

    project: str = Field("tunewright", min_length=1, description="Project (or experiment) name.")
    run_name: str | None = Field(
        None, min_length=1, description="Name of the run. Default: that of the run folder."
    )
    tags: list[str] = Field(default_factory=list, description="Tags of the run.")
    notes: str = Field("", description="Notes on the run.")
    samples: int = Field(
        8, ge=0, description="Completions sent per step, of stages that generate. 0: none."
    )
    upload_result: bool = Field(
        False, description="Send the trained weights of the last stage, as an artifact."
    )


@dataclass(frozen=True, slots=True)
class TrackerStart:
    """Description of a run that starts or resumes."""

    project: str
    name: str
    tags: list[str]
    notes: str
    folder: Path  # for files that the tracker writes: below the run folder, may not be there yet
    config: dict[str, Any]  # the resolved recipe, secrets masked; and versions
    run_id: str | None  # of the tracker's run that is continued; None: a new one


class Tracker(Logger):
    """Sends metrics, recipe, versions, samples and the result to an experiment tracker.

    Metrics are named `train/loss` and `eval/DATASET/loss`, in recipes with several stages
    `1-sft/train/loss`. Steps count on over the stages. A resumed run continues the tracker's run;
    its id stands in `logs/NAME.json`. Secrets, such as an API key, are not options: the tracker's
    library reads them from the environment.
    """

    class Options(TrackerOptions):
        pass

    artifacts = ("logs",)

    library: ClassVar[str]  #: the package that it imports, when a run starts

    def __init__(self, options: Any, name: str = "") -> None:
        super().__init__(options, name)
        self._file: Path | None = None  # once the tracker's run is open
        self._id: str | None = None
        self._offsets: dict[str, int] = {}  # stage's number → steps of all stages before it
        self._prefix, self._stage = "", 1
        self._samples: list[events.Sampled] = []

    # ---- what a subclass does --------------------------------------------------------------------

    def open(self, start: TrackerStart) -> str:
        """Begin the tracker's run, or continue `start.run_id`. Returns its id."""
        raise NotImplementedError

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Send numbers of a step. A number may be nan or inf, a name may hold any characters.

        After a resume, steps that were sent before come again.
        """
        raise NotImplementedError

    def log_samples(self, step: int, samples: list[dict[str, Any]]) -> None:
        """Send completions of a step: prompt, completion, and rewards by name."""
        raise NotImplementedError

    def log_artifact(self, folder: Path, name: str) -> None:
        """Send the files of a folder: trained weights. name: letters, digits, `_`, `.` and `-`."""
        raise NotImplementedError

    def finish(self, status: str) -> None:
        """End the tracker's run. status: completed, interrupted or failed."""
        raise NotImplementedError

    # ---- what happens when -----------------------------------------------------------------------

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        """Refuse a recipe where the tracker's library is not installed."""
        if find_spec(self.library) is None:
            hint = f"pip install {self.library.replace('_', '-')}, or leave out the logger"
            yield Problem(self.at, f"the library {self.library} is not installed", hint)

    @hookimpl
    def report(self, run: "RunContext", event: events.Event) -> None:
        match event:
            case events.RunStarted():
                self._open(run, event)
            case events.StageStarted():
                self._start_stage(event)
            case events.Logged():
                self._flush(event.step)
                self._log(event.step, "train", event.metrics)
            case events.Evaluated():
                self._log(event.step, f"eval/{event.dataset}", event.metrics)
            case events.Sampled():
                self._flush(event.step)
                self._samples.append(event)
            case events.StageFinished():
                self._flush()
                if self.options.upload_result and self._stage == len(run.recipe.stages):
                    name = f"{run.folder.name}-{event.stage}"
                    self.log_artifact(run.folder / event.path, _plain(name))
            case events.RunFinished():
                self._flush()
                self.finish(event.status)

    def _open(self, run: "RunContext", event: events.RunStarted) -> None:
        folder = run.folder / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / f"{self.name}.json"
        if event.resumed_from is not None and self._file.is_file():
            state = json.loads(self._file.read_text("utf-8"))
            self._id, self._offsets = state["id"], state["offsets"]
        self._id = self.open(
            TrackerStart(
                project=self.options.project,
                name=self.options.run_name or run.folder.name,
                tags=self.options.tags,
                notes=self.options.notes,
                folder=folder / self.name,
                config={"recipe": event.recipe, "versions": event.versions},
                run_id=self._id,
            )
        )
        self._save()

    def _start_stage(self, event: events.StageStarted) -> None:
        self._stage = event.number
        self._prefix = f"{event.number}-{event.stage}/" if event.of > 1 else ""
        start = self._offsets.setdefault(str(event.number), 0)
        self._offsets[str(event.number + 1)] = start + event.total_steps
        self._save()

    def _save(self) -> None:
        assert self._file is not None
        self._file.write_text(json.dumps({"id": self._id, "offsets": self._offsets}), "utf-8")

    def _step(self, step: int) -> int:
        return self._offsets.get(str(self._stage), 0) + step

    def _log(self, step: int, group: str, metrics: dict[str, float]) -> None:
        named = {f"{self._prefix}{group}/{name}": float(value) for name, value in metrics.items()}
        if named:
            self.log(self._step(step), named)

    def _flush(self, step: int | None = None) -> None:
        """Send the samples that are held, unless they are of `step`: more of it may come."""
        if self._samples and self._samples[0].step != step:
            held, self._samples = self._samples, []
            rows = [
                {"prompt": each.prompt, "completion": each.completion, **each.rewards}
                for each in held[: self.options.samples]
            ]
            if rows:
                self.log_samples(self._step(held[0].step), rows)


def _plain(name: str) -> str:
    """The name with `-` in place of what trackers do not take in the name of an artifact."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)
