"""Terminal output of a run."""

import shlex
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from tunewright import TunewrightError, events, registry
from tunewright.terminal import printable
from tunewright.words import counted

STEPS = {
    "load_model": "Loading the model",
    "apply_adapter": "Choosing what to train",
    "build_dataset": "Preparing the data",
    "train_stage": "Training",
}


class View:
    """Prints events. Strings are printed literally: no markup, no control characters."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None  # while a stage trains in a terminal
        self._task = TaskID(0)
        self._run_started = 0.0  # seconds since 1970, like all times here
        self._stage = events.StageStarted(stage="", number=1, of=1, total_steps=0)

    def show(self, event: events.Event) -> None:
        match event:
            case events.RunStarted():
                self._start_run(event)
            case events.StepStarted():
                self._line(f"{STEPS.get(event.step, event.step)}  ", "bold", event.detail)
            case events.Notice():
                warns = event.level == "warning"
                self._line("Warning: " if warns else "  ", "yellow" if warns else "", event.message)
            case events.StageStarted():
                self._start_stage(event)
            case events.Logged():
                self._log(event)
            case events.Evaluated():
                numbers = ", ".join(f"{name} {value:.4g}" for name, value in event.metrics.items())
                self._line(f"  step {event.step}: {event.dataset}  ", "cyan", numbers)
            case events.Saved():
                self._line(f"  step {event.step}: saved  ", "dim", event.path)
            case events.StageFinished():
                self._stop()
                self._line(
                    f"{event.stage} finished  ",
                    "bold",
                    f"{counted(event.steps, 'step')}, result in {event.path}",
                )
            case events.RunFinished():
                self._stop()
                self._finish_run(event)

    def _line(self, head: str, style: str, text: str = "") -> None:
        line = Text.assemble((printable(head), style), printable(text))
        line.rstrip()
        self._console.print(line, soft_wrap=True)  # a line in a log file stays on one line

    def _start_run(self, event: events.RunStarted) -> None:
        self._run_started = event.time
        recipe = event.recipe
        rows = {
            "model": recipe["model"],
            "method": ", ".join(
                [" → ".join(stage["name"] for stage in recipe["stages"]), *_adapter(recipe)]
            ),
            "data": ", ".join(_source(entry) for entry in _entries(recipe)),
            "output": event.folder,
        }
        if event.resumed_from:
            rows["resumed"] = event.resumed_from
        for name, value in rows.items():
            self._line(f"{name:<9}", "bold cyan", value)

    def _start_stage(self, event: events.StageStarted) -> None:
        self._stop()
        self._stage = event
        share = 100 * event.trainable_parameters / max(event.parameters, 1)
        self._line(
            f"Stage {event.number} of {event.of}: {event.stage}  ",
            "bold",
            (counted(event.rows, "row") if event.rows else "streamed rows")
            + f", {counted(event.total_steps, 'step')}"
            + (f" (from step {event.first_step:,})" if event.first_step else "")
            + (
                f", {event.trainable_parameters:,} of {event.parameters:,} parameters "
                f"trained ({share:.3g} %)"
            ),
        )
        if self._console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None),
                TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
                TextColumn("{task.fields[numbers]}", markup=False),
                console=self._console,
                expand=True,  # the bar takes the remaining width
            )
            self._task = self._progress.add_task(
                printable(event.stage),
                total=event.total_steps,
                completed=event.first_step,
                numbers="",
            )
            self._progress.start()

    def _log(self, event: events.Logged) -> None:
        numbers = "  ".join([*_numbers(event.metrics), *self._remaining(event)])
        if self._progress is not None:
            self._progress.update(
                self._task, completed=event.step, total=event.total_steps, numbers=numbers
            )
        else:
            self._line(f"  step {event.step}/{event.total_steps}  ", "", numbers)

    def _remaining(self, event: events.Logged) -> list[str]:
        done, left = event.step - self._stage.first_step, event.total_steps - event.step
        if done <= 0:
            return []
        return [f"ETA {_duration((event.time - self._stage.time) / done * left)}"]

    def _finish_run(self, event: events.RunFinished) -> None:
        after = _duration(event.time - self._run_started)
        folder = shlex.quote(event.folder)
        if event.status == "completed":
            self._line(f"Finished in {after}.  ", "bold green", f"Everything is in {event.folder}")
            if self._speaks():
                self._line("  Talk to it:  ", "", f"tunewright chat {folder}")
        elif event.status == "interrupted":
            # the command prints how to resume
            self._line(f"Interrupted after {after}.", "bold yellow")
        else:
            # the command prints the error itself
            self._line(f"Failed after {after}.", "bold red")

    def _speaks(self) -> bool:
        """Whether the last stage trained a model that generates text."""
        try:
            plugin = registry.load(registry.find("stage", self._stage.stage))  # type: ignore[attr-defined]
            return plugin.head == "causal_lm" and plugin.rows != "retrieval"
        except TunewrightError:
            return True

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _numbers(metrics: dict[str, float]) -> list[str]:
    shown = {
        "loss": "loss {:.4f}",
        "learning_rate": "lr {:.1e}",
        "tokens_per_second": "{:,.0f} tokens/s",
    }
    return [text.format(metrics[name]) for name, text in shown.items() if name in metrics]


def _adapter(recipe: dict[str, Any]) -> list[str]:
    return [recipe["adapter"]["name"]] if recipe.get("adapter") else []


def _entries(recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """Sources of all stages; stages without their own have the recipe's."""
    sources: list[dict[str, Any]] = []
    for stage in recipe["stages"]:
        sources += [entry for entry in stage.get("data", recipe["data"]) if entry not in sources]
    return sources


def _source(entry: dict[str, Any]) -> str:
    """Display name of a source. Dataset plugins that read no files may have no `path`."""
    return str(entry.get("path", next(iter(entry.values()), "")))


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
