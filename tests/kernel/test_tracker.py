"""The base class of trackers, with a tracker that writes down what it is told."""

import json
import threading
from pathlib import Path
from typing import Any, cast

import pytest

import kernel_fakes as fakes
from tunewright import check, events, registry, report
from tunewright.check import RecipeProblems
from tunewright.index import Point
from tunewright.registry import Entry
from tunewright.tracker import Tracker, TrackerOptions, TrackerStart


class Fake(Tracker):
    """A tracker in memory. `fails` raises in the method of this name."""

    library = "json"
    fails = ""
    hangs: threading.Event | None = None

    def __init__(self, options: Any, name: str = "fake") -> None:
        super().__init__(options, name)
        self.said: list[tuple[Any, ...]] = []

    def _say(self, method: str, *said: Any) -> None:
        if self.hangs is not None:
            self.hangs.wait(60)
        if method == self.fails:
            raise ConnectionRefusedError("the server is gone")
        self.said.append((method, *said))

    def open(self, start: TrackerStart) -> str:
        self._say("open", start)
        return start.run_id or "run-1"

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self._say("log", step, metrics)

    def log_samples(self, step: int, samples: list[dict[str, Any]]) -> None:
        self._say("samples", step, samples)

    def log_artifact(self, folder: Path, name: str) -> None:
        self._say("artifact", folder, name)

    def finish(self, status: str) -> None:
        self._say("finish", status)


class FakeRun:
    """What a tracker asks of the run."""

    def __init__(self, folder: Path, stages: int = 1) -> None:
        self.folder, self.recipe = folder, type("Recipe", (), {"stages": [None] * stages})


def tell(
    folder: Path, *said: events.Event, stages: int = 1, tracker: Fake | None = None, **options: Any
) -> tuple[Fake, dict[str, str]]:
    """Send events as a run does. Returns the tracker, and which loggers were muted."""
    tracker = tracker or Fake(TrackerOptions(**options))
    entry = Entry("logger", Point("logger", "fake", "m:Fake", "tw-fake", "1", ""))
    caller = registry.PluginCaller(entry, tracker)
    reporter = report.Reporter(cast("Any", FakeRun(folder, stages)), [caller])
    for event in said:
        reporter.emit(event)
    return tracker, reporter.close()


def started(resumed: str | None = None) -> events.RunStarted:
    recipe, versions = {"model": "tiny"}, {"torch": "2"}
    return events.RunStarted(folder="f", recipe=recipe, versions=versions, resumed_from=resumed)


def stage(number: int = 1, of: int = 1, name: str = "sft", **fields: Any) -> events.StageStarted:
    fields = {"total_steps": 10, **fields}
    return events.StageStarted(stage=name, number=number, of=of, **fields)


def logged(step: int, **metrics: float) -> events.Logged:
    return events.Logged(stage="s", step=step, total_steps=10, metrics=metrics or {"loss": 1.0})


def sample(step: int, completion: str = "c", **rewards: float) -> events.Sampled:
    return events.Sampled(
        stage="s", step=step, prompt="p", completion=completion, rewards=rewards or {"reward": 1.0}
    )


def finished(status: str = "completed") -> events.RunFinished:
    return events.RunFinished(status=status, folder="f")


def test_a_tracker_is_told_of_the_run(tmp_path: Path) -> None:
    tracker, muted = tell(tmp_path / "mine", started(), finished(), tags=["a"], notes="n")
    assert muted == {}
    ((_, start), end) = tracker.said
    assert (start.project, start.name, start.tags) == ("tunewright", "mine", ["a"])
    assert (start.notes, start.run_id) == ("n", None)
    assert start.folder == tmp_path / "mine" / "logs" / "fake"
    assert start.config == {"recipe": {"model": "tiny"}, "versions": {"torch": "2"}}
    assert end == ("finish", "completed")


def test_the_run_may_have_a_name_and_a_project(tmp_path: Path) -> None:
    tracker, _ = tell(tmp_path, started(), finished(), run_name="n", project="p")
    start = tracker.said[0][1]
    assert (start.project, start.name) == ("p", "n")


def test_metrics_of_one_stage_have_short_names(tmp_path: Path) -> None:
    evaluated = events.Evaluated(stage="sft", step=2, dataset="held", metrics={"loss": 2})
    tracker, _ = tell(tmp_path, started(), stage(), logged(1, loss=3), evaluated, finished())
    assert tracker.said[1:3] == [
        ("log", 1, {"train/loss": 3.0}),
        ("log", 2, {"eval/held/loss": 2.0}),
    ]
    assert isinstance(tracker.said[2][2]["eval/held/loss"], float)


def test_no_metrics_send_nothing(tmp_path: Path) -> None:
    empty = events.Logged(stage="s", step=1, total_steps=1, metrics={})
    tracker, _ = tell(tmp_path, started(), stage(), empty, finished())
    assert [name for name, *_ in tracker.said] == ["open", "finish"]


def test_stages_have_names_and_steps_count_on(tmp_path: Path) -> None:
    said = [started(), stage(1, 3), logged(10), stage(2, 3, "dpo", total_steps=5), logged(2)]
    said += [stage(3, 3, "dpo"), logged(1), finished()]
    tracker, _ = tell(tmp_path, *said, stages=3)
    assert tracker.said[1:4] == [
        ("log", 10, {"1-sft/train/loss": 1.0}),
        ("log", 12, {"2-dpo/train/loss": 1.0}),
        ("log", 16, {"3-dpo/train/loss": 1.0}),
    ]


def test_a_resumed_run_continues_the_same_id_and_steps(tmp_path: Path) -> None:
    tell(tmp_path, started(), stage(1, 2), logged(10), stage(2, 2), finished("interrupted"))
    again, _ = tell(tmp_path, started("x"), stage(2, 2, first_step=3), logged(4), finished())
    assert again.said[0][1].run_id == "run-1"
    assert again.said[1] == ("log", 14, {"2-sft/train/loss": 1.0})
    assert json.loads((tmp_path / "logs/fake.json").read_text())["id"] == "run-1"


def test_a_new_run_in_the_same_folder_has_a_new_id(tmp_path: Path) -> None:
    tell(tmp_path, started(), finished())
    again, _ = tell(tmp_path, started(), finished())
    assert again.said[0][1].run_id is None


def test_a_run_whose_tracker_could_not_be_opened_is_resumed_as_a_new_one(tmp_path: Path) -> None:
    broken = Fake(TrackerOptions())
    broken.fails = "open"
    tell(tmp_path, started(), finished("interrupted"), tracker=broken)
    again, muted = tell(tmp_path, started("x"), finished())
    assert (again.said[0][1].run_id, muted) == (None, {})


def test_samples_are_sent_once_per_step_and_no_more_than_asked(tmp_path: Path) -> None:
    said = [started(), stage(), sample(1, "a"), sample(1, "b", reward=2.0), sample(1, "c")]
    said += [logged(1), sample(2, "d"), finished()]
    tracker, _ = tell(tmp_path, *said, samples=2)
    first = [
        {"prompt": "p", "completion": "a", "reward": 1.0},
        {"prompt": "p", "completion": "b", "reward": 2.0},
    ]
    second = [{"prompt": "p", "completion": "d", "reward": 1.0}]
    assert [each for each in tracker.said if each[0] == "samples"] == [
        ("samples", 1, first),
        ("samples", 2, second),
    ]


def test_samples_of_a_stage_have_its_steps(tmp_path: Path) -> None:
    said = [started(), stage(1, 2), sample(10), events.StageFinished(stage="s", steps=10, path="m")]
    said += [stage(2, 2), sample(1), finished()]
    tracker, _ = tell(tmp_path, *said, stages=2)
    assert [step for name, step, *_ in tracker.said if name == "samples"] == [10, 11]


def test_no_samples_where_none_are_wanted(tmp_path: Path) -> None:
    tracker, _ = tell(tmp_path, started(), stage(), sample(1), finished(), samples=0)
    assert [name for name, *_ in tracker.said] == ["open", "finish"]


def test_the_result_of_the_last_stage_is_sent_when_asked(tmp_path: Path) -> None:
    ends = [
        events.StageFinished(stage=name, steps=1, path=f"{name[-3:]}/model")
        for name in ("sft", "other:dpo")
    ]
    said = [started(), stage(1, 2), ends[0], stage(2, 2), ends[1], finished()]
    folder = tmp_path / "a run"
    tracker, _ = tell(folder, *said, stages=2, upload_result=True)
    sent = [each for each in tracker.said if each[0] == "artifact"]
    assert sent == [("artifact", folder / "dpo/model", "a-run-other-dpo")]
    tracker, _ = tell(folder, *said, stages=2)
    assert not [each for each in tracker.said if each[0] == "artifact"]


@pytest.mark.parametrize("method", ["open", "log", "samples", "artifact", "finish"])
def test_a_tracker_that_fails_is_muted(tmp_path: Path, method: str) -> None:
    tracker = Fake(TrackerOptions(upload_result=True))
    tracker.fails = method
    ended = events.StageFinished(stage="sft", steps=1, path="model")
    said = [started(), stage(), sample(1), logged(2), ended, finished()]
    _, muted = tell(tmp_path, *said, tracker=tracker)
    assert muted == {"fake": "ConnectionRefusedError: the server is gone"}


def test_a_slow_tracker_holds_up_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All events are emitted, and the run goes on to its end, while the first still hangs."""
    monkeypatch.setattr(report, "PATIENCE", 0.1)
    tracker = Fake(TrackerOptions())
    tracker.hangs = threading.Event()
    said = [started(), stage(), *(logged(step) for step in range(1, 50)), finished()]
    _, muted = tell(tmp_path, *said, tracker=tracker)
    assert tracker.said == []
    assert muted["fake"].startswith("was not done")
    tracker.hangs.set()


LOGGER = """
from tunewright.tracker import Tracker

class Mine(Tracker):
    library = "{library}"

    def open(self, start):
        return "1"
"""


@pytest.mark.parametrize(("library", "refused"), [("no_such_library", True), ("json", False)])
def test_check_says_that_the_library_is_missing(tmp_path, install, library, refused) -> None:
    install("tw-mine", fakes.POINTS, fakes.SOURCE)
    points = {"logger": {"tracked": "tw_tracked:Mine"}}
    install("tw-tracked", points, LOGGER.format(library=library))
    file = tmp_path / "r.yaml"
    file.write_text(fakes.RECIPE.replace("[mine]", "[mine, tracked]") % tmp_path)
    if not refused:
        check.resolve(file)
        return
    with pytest.raises(RecipeProblems) as wrong:
        check.resolve(file)
    (line,) = wrong.value.lines
    assert "loggers.1: the library no_such_library is not installed" in line
    assert "(pip install no-such-library, or leave out the logger)" in line
