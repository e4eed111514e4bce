"""Tests for loggers: no event makes them fail."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from tunewright import events, report
from tunewright.folder import versions
from tunewright.registry import Entry
from tunewright_conformance.bench import on_bench
from tunewright_conformance.doubles import FakeRun
from tunewright_conformance.suite import Suite

if TYPE_CHECKING:
    from tunewright.types import RunContext

ODD = "a/b: ü 漢字 \U0001f600 [bold] \x1b[31m\x00\n%s {} \u202e"
NUMBERS = (math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7e308, 2**70)


@dataclass(frozen=True, slots=True, kw_only=True)
class NeverHeardOf(events.Event):
    """An event of a later kernel."""

    what: Any


class TestLogger(Suite):
    kinds = ("logger",)

    def test_whole_run(self, entry: Entry, tmp_path: Path) -> None:
        """Every sort of event, in the order of a run with two stages."""
        tell(entry, FakeRun(tmp_path), whole_run(tmp_path))

    def test_resumed_run(self, entry: Entry, tmp_path: Path) -> None:
        """An interrupted run, continued in the same folder."""
        begun = [
            *start(tmp_path),
            *(logged(step) for step in range(1, 6)),
            finish(tmp_path, "interrupted"),
        ]
        tell(entry, FakeRun(tmp_path), begun)
        again = [*start(tmp_path, 3), *(logged(step) for step in range(4, 9)), finish(tmp_path)]
        tell(entry, FakeRun(tmp_path), again)

    @pytest.mark.parametrize("status", ["interrupted", "failed"])
    def test_run_that_fails_early(self, entry: Entry, tmp_path: Path, status: str) -> None:
        """The last event may come at any time, even right after the first."""
        tell(
            entry,
            FakeRun(tmp_path),
            [start(tmp_path)[0], finish(tmp_path, status, "RunError: " + ODD)],
        )

    def test_odd_values(self, entry: Entry, tmp_path: Path) -> None:
        """NaN and huge numbers, unusual characters in names and messages, and no metrics at all."""
        metrics = {f"{ODD}{index}": number for index, number in enumerate(NUMBERS)}
        odd = [
            *start(tmp_path),
            *(logged(step, loss=number) for step, number in enumerate(NUMBERS, 1)),
            logged(8, **metrics),
            events.Logged(stage="sft", step=2**40, total_steps=2**40, metrics={}),
            events.Evaluated(stage="sft", step=9, dataset=ODD, metrics=metrics),
            events.Notice(message=ODD, level="warning"),
            sampled(9, ODD, **metrics),
            events.Saved(stage="sft", step=9, path=ODD),
            finish(tmp_path, "failed", ODD),
        ]
        tell(entry, FakeRun(tmp_path), odd)

    def test_unknown_event(self, entry: Entry, tmp_path: Path) -> None:
        """A later kernel may send events that this logger does not know."""
        tell(
            entry,
            FakeRun(tmp_path),
            [*start(tmp_path), NeverHeardOf(what={"a": [1]}), finish(tmp_path)],
        )

    def test_writes_into_the_run_folder_only(
        self, entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing is written to the current folder."""
        here, folder = tmp_path / "here", tmp_path / "run"
        here.mkdir()
        folder.mkdir()
        monkeypatch.chdir(here)
        tell(entry, FakeRun(folder), whole_run(folder))
        assert not list(here.iterdir())


def tell(entry: Entry, bench: FakeRun, said: Iterable[events.Event]) -> None:
    """Send events as a run does, from a thread, and fail where the logger was muted."""
    with pytest.MonkeyPatch.context() as patch:
        # seconds: output is tested here, not speed
        patch.setattr(report, "PATIENCE", 300.0)
        reporter = report.Reporter(cast("RunContext", bench), [on_bench(entry)])
        for event in said:
            reporter.emit(event)
        muted = reporter.close()
    assert not muted, f"the run had to mute it: {muted}"


def start(folder: Path, step: int = 0) -> list[events.Event]:
    resumed = "checkpoints/step-3" if step else None
    recipe = FakeRun(folder).recipe.as_dict()
    libraries = versions()["libraries"]
    return [
        events.RunStarted(
            folder=str(folder), recipe=recipe, versions=libraries, resumed_from=resumed
        ),
        events.StageStarted(stage="sft", number=1, of=2, total_steps=8, first_step=step, rows=16),
    ]


def logged(step: int, **metrics: float) -> events.Logged:
    metrics = {
        "loss": 3.0 / step,
        "learning_rate": 1e-4,
        "epoch": step / 8,
        "tokens": 100 * step,
        **metrics,
    }
    return events.Logged(stage="sft", step=step, total_steps=8, metrics=metrics)


def sampled(step: int, text: str, **rewards: float) -> events.Sampled:
    return events.Sampled(
        stage="sft", step=step, prompt=text, completion=text, rewards={"reward": 0.5, **rewards}
    )


def finish(folder: Path, status: str = "completed", error: str | None = None) -> events.RunFinished:
    return events.RunFinished(status=status, folder=str(folder), error=error)


def whole_run(folder: Path) -> list[events.Event]:
    steps = ("load_model", "apply_adapter", "build_dataset", "train_stage")
    return [
        start(folder)[0],
        *(events.StepStarted(step=step) for step in steps),
        events.Notice(message="2 of 18 rows dropped: longer than max_length"),
        start(folder)[1],
        *(logged(step) for step in range(1, 8)),
        sampled(8, "a completion"),
        sampled(8, "another"),
        logged(8),
        events.Evaluated(stage="sft", step=8, dataset="held out", metrics={"loss": 0.5}),
        events.Saved(stage="sft", step=8, path="checkpoints/step-8"),
        events.StageFinished(
            stage="sft", steps=8, path="stages/1-sft/model", metrics={"loss": 0.4}
        ),
        events.StageStarted(stage="other:dpo", number=2, of=2, total_steps=1, rows=1),
        events.Logged(stage="other:dpo", step=1, total_steps=1, metrics={"loss": 0.7}),
        events.StageFinished(stage="other:dpo", steps=1, path="stages/2-dpo/model"),
        finish(folder),
    ]
