"""A run's events, sent to one logger as a run sends them."""

import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tunewright import events, registry, report

LIBRARIES = {
    "wandb": "wandb",
    "mlflow": "mlflow",
    "swanlab": "swanlab",
    "trackio": "trackio",
    "comet": "comet_ml",
    "aim": "aim",
}
OFFLINE: dict[str, dict[str, Any]] = {
    "wandb": {"mode": "offline"},
    "swanlab": {"mode": "offline"},
    "comet": {"mode": "offline"},
}
RECIPE = {
    "model": "tiny",
    "stages": [{"name": "grpo"}],
    "training": {"learning_rate": 1e-4, "epochs": 2},
    "loggers": [{"name": "own", "password": "**********"}],
}
VERSIONS = {"torch": "2.14.1", "tunewright": "0.1.0"}
TAGS, NOTES = ["tiny", "a tag"], "What this run is for."
needs_trackers = pytest.mark.skipif(
    not all(map(find_spec, LIBRARIES.values())),
    reason="needs the environment trackers: python scripts/dev.py env trackers",
)


def send(name: str, folder: Path, said: Sequence[events.Event], **options: Any) -> None:
    """Send the events; fails where the logger was muted."""
    plugin = registry.load(entry := registry.find("logger", name))
    made = plugin(plugin.Options(**{**OFFLINE.get(name, {}), **options}), name)
    caller = registry.PluginCaller(entry, made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "PATIENCE", 200.0)
        reporter = report.Reporter(a_run(folder), [caller])
        for event in said:
            reporter.emit(event)
        muted = reporter.close()
    assert muted == {}


def a_run(folder: Path) -> Any:
    """What loggers ask of a run of one stage."""
    return SimpleNamespace(folder=folder, recipe=SimpleNamespace(stages=[None]))


def run_twice(name: str, folder: Path, **options: Any) -> None:
    """A run that is interrupted after step 3, saved at step 2, and resumed to its end at 4."""
    options = {"tags": TAGS, "notes": NOTES, "project": "birds", "upload_result": True, **options}
    model = folder / "model"
    model.mkdir(parents=True)
    model.joinpath("adapter.txt").write_text("weights")
    begun = [started(folder), stage(0), *step(1), *step(2), *step(3), finished("interrupted")]
    send(name, folder, begun, **options)
    time.sleep(1.1)  # wandb and SwanLab name the folder of a start by its second
    ended = events.StageFinished(stage="grpo", steps=4, path="model")
    again = [started(folder, "x"), stage(2), *step(3), *step(4), evaluated(4), ended, finished()]
    send(name, folder, again, **options)


def started(folder: Path, resumed: str | None = None) -> events.RunStarted:
    return events.RunStarted(
        folder=str(folder), recipe=RECIPE, versions=VERSIONS, resumed_from=resumed
    )


def stage(first: int) -> events.StageStarted:
    return events.StageStarted(stage="grpo", number=1, of=1, total_steps=4, first_step=first)


def step(number: int) -> list[events.Event]:
    """A step with one completion and its numbers."""
    sampled = events.Sampled(
        stage="grpo",
        step=number,
        prompt="Name a bird.",
        completion=f"wren {number}",
        rewards={"reward": number / 4},
    )
    metrics = {"loss": 3.0 / number, "learning_rate": 1e-4}
    return [
        sampled,
        events.Logged(stage="grpo", step=number, total_steps=4, metrics=metrics),
    ]


def evaluated(number: int) -> events.Evaluated:
    return events.Evaluated(stage="grpo", step=number, dataset="held out", metrics={"loss": 0.5})


def finished(status: str = "completed") -> events.RunFinished:
    return events.RunFinished(status=status, folder="f")
