"""State files of a run: events.jsonl, run.json during the run and after it."""

import json
import math
import os
import signal
import socket
import sys
import time

import pytest

import kernel_fakes as fakes
from tunewright import check, events, folder, run
from tunewright.errors import RecipeError, RunError, Stopped
from tunewright.state import StateWriter

TALKS = """
from tunewright import Stage, events

SEEN = []

class Talks(Stage):
    rows = "messages"
    artifacts = ("checkpoints", "model", "talk")
    class Options(PluginOptions):
        steps: int = 3
        wait: float = 0.0
        stop_at: int = 0
        raise_at: int = 0
        pace: int = Field(1, json_schema_extra={"may_change": True})

    @hookimpl
    def train_stage(self, run, request):
        run.emit(events.StageStarted(stage=self.name, number=request.number, of=2,
                                     total_steps=self.options.steps))
        for step in range(1, self.options.steps + 1):
            time.sleep(self.options.wait)
            metrics = {"loss": float("nan"), "grad_norm": float("inf"), "tokens": 7}
            run.emit(events.Logged(stage=self.name, step=step, total_steps=3, metrics=metrics))
            SEEN.append(json.loads((run.folder / "run.json").read_text()))
            if step == self.options.stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
                run.check_stop()
            if step == self.options.raise_at:
                raise RunError("broke")
        path = request.folder / "model"
        path.mkdir(parents=True)
        (run.folder / "talk").write_text("x")
        return StageResult(path, "model", steps=3, metrics={"loss": float("nan")})

class Stops(Plugin):
    class Entry(PluginOptions):
        path: str
        name: str = ""
    class Options(PluginOptions):
        workers: int = Field(1, json_schema_extra={"may_change": True})
        size: int = 1
    @hookimpl
    def build_dataset(self, run):
        if self.options.size == 99:
            os.kill(os.getpid(), signal.SIGINT)
            run.check_stop()
            SEEN.append("went on")
        return Data([1], fingerprint="same")

class Flat(Scheduler):
    needs_total_steps = False
    @hookimpl
    def build_scheduler(self): ...

class Bent(Scheduler):
    @hookimpl
    def build_scheduler(self): ...
"""
IMPORTS = """
import json, os, signal, time
from pydantic import Field
from tunewright import Scheduler
from tunewright.errors import RunError
from tunewright.types import Data, StageResult
"""
POINTS = {
    "stage": {"talks": "tw_talks:Talks"},
    "dataset": {"stops": "tw_talks:Stops"},
    "scheduler": {"flat": "tw_talks:Flat", "bent": "tw_talks:Bent"},
}


@pytest.fixture
def train(tmp_path, install):
    install("tw-mine", fakes.POINTS, fakes.SOURCE)
    install("tw-talks", POINTS, IMPORTS + TALKS)
    out = tmp_path / "out"

    def _train(*overrides: str, stages: str = "stage: talks", **how):
        text = fakes.RECIPE.replace("stage: mine", stages).replace(
            "dataset: mine", "dataset: stops"
        )
        (tmp_path / "r.yaml").write_text(text % out)
        return run.train(tmp_path / "r.yaml", overrides=overrides, **how)

    _train.out = out
    return _train


def events_of(out) -> list[dict]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    lines = (out / "events.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def state_of(out) -> dict:
    return json.loads((out / "run.json").read_text())


# ---- events.jsonl and `running` ------------------------------------------------------------------


def test_every_event_is_in_the_file_and_reaches_the_caller(train):
    told = []
    train(on_event=told.append)
    written = events_of(train.out)
    assert [event["event"] for event in written] == [type(event).__name__ for event in told]
    assert [event["event"] for event in written].count("Logged") == 3
    assert {"RunStarted", "StepStarted", "StageStarted", "StageFinished", "RunFinished"} <= {
        event["event"] for event in written
    }
    logged = next(event for event in written if event["event"] == "Logged")
    assert logged["metrics"] == {"loss": None, "grad_norm": None, "tokens": 7}
    assert all(isinstance(event["time"], float) for event in written)
    assert math.isnan(told[-2].metrics["loss"])


def test_warnings_are_in_run_json_once_each(tmp_path):
    state = {}
    write = StateWriter(tmp_path, state)
    for message, level in (("a", "warning"), ("b", "info"), ("a", "warning"), ("c", "warning")):
        write(events.Notice(message=message, level=level))
    assert state["warnings"] == ["a", "c"]


def test_run_json_tells_a_live_run_from_a_dead_one(train):
    before = time.time()
    train("stage.wait=0.6")
    first, last = sys.modules["tw_talks"].SEEN[0], sys.modules["tw_talks"].SEEN[-1]
    running = first["running"]
    assert first["status"] == "running"
    assert (
        running.items()
        >= {
            "stage": "talks",
            "number": 1,
            "total_steps": 3,
            "pid": os.getpid(),
            "host": socket.gethostname(),
        }.items()
    )
    assert before <= running["started"] <= time.time()
    assert last["running"]["step"] >= 2  # written once a second
    done = state_of(train.out)
    assert "running" not in done and done["status"] == "completed"
    assert done["stages"][0]["metrics"] == {"loss": None}


def test_each_stage_says_its_number(train):
    train(stages="stages: [talks, talks]")
    numbers = [state["running"]["number"] for state in sys.modules["tw_talks"].SEEN]
    assert numbers == [1, 1, 1, 2, 2, 2]


def test_a_run_that_failed_is_not_running(train):
    with pytest.raises(RunError):
        train("stage.raise_at=2")
    assert "running" not in state_of(train.out)
    last = events_of(train.out)[-1]
    assert (last["event"], last["status"]) == ("RunFinished", "failed")
    assert "broke" in last["error"]


def test_a_resumed_run_appends_its_events(train):
    with pytest.raises(Stopped):
        train("stage.stop_at=2")
    first = len(events_of(train.out))
    with pytest.raises(Stopped):
        train("stage.stop_at=2", "stage.pace=2", resume=True)
    assert len(events_of(train.out)) > first
    assert events_of(train.out)[first]["resumed_from"] == str(train.out)
    messages = [event.get("message") for event in events_of(train.out)]
    assert "no checkpoint to resume from: talks begins anew" in messages


def test_events_that_cannot_be_written_are_one_line(tmp_path, monkeypatch):
    from tunewright.events import Notice

    (tmp_path / "events.jsonl").mkdir()
    with pytest.raises(RunError, match=r"events.jsonl: cannot be written: "):
        StateWriter(tmp_path, {})(Notice(message="x"))


# ---- stopping ------------------------------------------------------------------------------------


def test_a_stop_while_data_is_prepared_is_answered_at_once(train, capfd):
    with pytest.raises(Stopped) as stopped:
        train("dataset.size=99")
    assert "stopping: " in capfd.readouterr().err
    assert stopped.value.exit_code == 130
    assert stopped.value.hint.endswith("recipe.yaml --resume")
    assert sys.modules["tw_talks"].SEEN == []
    assert state_of(train.out)["status"] == "interrupted"


def test_between_two_steps_of_the_run_the_kernel_looks(train, monkeypatch):
    real = run.Run.load

    def load(self, **how):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(self, **how)

    monkeypatch.setattr(run.Run, "load", load)
    with pytest.raises(Stopped):
        train()
    steps = [event["step"] for event in events_of(train.out) if event["event"] == "StepStarted"]
    assert "build_dataset" not in steps


def test_a_second_ctrl_c_stops_at_once(train, monkeypatch):
    def load(self, **how):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("went on")

    monkeypatch.setattr(run.Run, "load", load)
    with pytest.raises(Stopped, match="what came after the last checkpoint is lost"):
        train()


# ---- resuming with a recipe that has changed -----------------------------------------------------

HARMLESS = [
    "training.logging_steps=3",
    "training.save_steps=7",
    "training.save_total_limit=1",
    "training.eval_steps=9",
    "training.per_device_eval_batch_size=2",
    "loggers=[mine, raises]",
    "engine.name=mine",
    "launch.main_port=1234",
    "data.0.path=./a.jsonl",
    "dataset.workers=5",
    "stage.pace=9",
]


@pytest.mark.parametrize("change", HARMLESS)
def test_a_harmless_change_may_be_made(train, change):
    with pytest.raises(Stopped):
        train("stage.stop_at=1")
    with pytest.raises(Stopped):  # it goes on, and is stopped again by itself
        train("stage.stop_at=1", change, resume=True)
    assert state_of(train.out)["resumed"] is True


HARMFUL = {
    "training.learning_rate=1": "training.learning_rate was 5e-05 when the run began, is 1.0 now",
    "training.max_steps=9": "training.max_steps was None when the run began, is 9 now",
    "adapter={name: mine}": None,
    "dataset.size=2": "dataset.size was 1 when the run began, is 2 now",
    "stage.steps=5": "stages.0.steps was 3 when the run began, is 5 now",
    "data.0.name=b": "data.0.name was",
    "accelerators=[]": None,
    "scheduler=flat": "scheduler.name was 'cosine' when the run began, is 'flat' now",
    "training.seed=7": "training.seed was 42 when the run began, is 7 now",
    "data=[{path: a.jsonl}, {path: b.jsonl}]": "data.1.path was None when the run began",
}


@pytest.mark.parametrize("change", HARMFUL)
def test_the_one_field_that_may_not_change_is_named(train, change):
    with pytest.raises(Stopped):
        train("stage.stop_at=1")
    said = HARMFUL[change]
    with pytest.raises(RecipeError if said else Stopped) as error:
        train("stage.stop_at=1", change, resume=True)
    if said:
        assert said in str(error.value)
        assert len(str(error.value)) < 400
        assert "--overwrite" in error.value.hint


@pytest.mark.parametrize(
    ("schedule", "old", "new", "allowed"),
    [
        ("flat", "max_steps=5", "max_steps=9", True),
        ("flat", "epochs=1", "epochs=2.5", True),
        ("flat", "max_steps=5", "max_steps=3", False),
        ("bent", "max_steps=5", "max_steps=9", False),
    ],
)
def test_more_steps_where_the_schedule_does_not_depend_on_them(train, schedule, old, new, allowed):
    given = (f"scheduler={schedule}", "stage.stop_at=1")
    with pytest.raises(Stopped):
        train(*given, f"training.{old}")
    with pytest.raises(Stopped if allowed else RecipeError):
        train(*given, f"training.{new}", resume=True)
    if allowed:  # what it goes on with is written down, and holds from then on
        name, _, value = new.partition("=")
        assert state_of(train.out)["recipe"]["training"][name] == float(value)
        assert (
            f"{name}: {float(value) if name == 'epochs' else value}"
            in (train.out / "recipe.yaml").read_text()
        )
        with pytest.raises(RecipeError, match=f"training.{name} was"):
            train(*given, f"training.{old}", resume=True)


def test_a_stage_that_is_finished_does_not_get_more_steps(train):
    stages = "stages: [{name: talks, training: {max_steps: 2}}, {name: talks, stop_at: 1}]"
    with pytest.raises(Stopped):
        train("scheduler=flat", stages=stages)
    with pytest.raises(RecipeError, match=r"stages.0.training.max_steps was 2 .* is 4 now"):
        train("scheduler=flat", "stages.0.training.max_steps=4", stages=stages, resume=True)


def test_options_that_a_later_version_has_are_at_their_defaults(train):
    with pytest.raises(Stopped):
        train("stage.stop_at=1")
    state = state_of(train.out)
    del state["recipe"]["dataset"]["size"], state["recipe"]["training"]["max_grad_norm"]
    (train.out / "run.json").write_text(json.dumps(state))
    with pytest.raises(Stopped):
        train("stage.stop_at=1", resume=True)
    (train.out / "run.json").write_text(json.dumps(state))
    with pytest.raises(RecipeError, match=r"training.max_grad_norm was 1.0 when the run began"):
        train("stage.stop_at=1", "training.max_grad_norm=2", resume=True)


# ---- folders -------------------------------------------------------------------------------------


def test_overwrite_removes_what_the_run_made_and_nothing_else(train):
    train()
    (train.out / "notes.txt").write_text("mine")
    (train.out / "checkpoints").mkdir()
    (train.out / "old").symlink_to(train.out.parent)
    train(overwrite=True)
    assert (train.out / "notes.txt").read_text() == "mine"
    assert (train.out / "old").is_symlink()
    assert not (train.out / "checkpoints").exists()
    assert state_of(train.out)["artifacts"] == ["checkpoints", "model", "talk"]


def test_a_folder_that_no_run_made_is_kept(train):
    (train.out / "model").mkdir(parents=True)
    (train.out / "model/x").write_text("a week of work")
    for overwrite in (False, True):
        with pytest.raises(RecipeError) as error:
            train(overwrite=overwrite)
        assert "(choose another `output`" in str(error.value)
    assert (train.out / "model/x").read_text() == "a week of work"
    assert not (train.out / "run.json").exists()


def test_a_link_that_a_run_left_is_removed_and_not_followed(train):
    train()
    elsewhere = train.out.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "x").write_text("mine")
    (train.out / "checkpoints").symlink_to(elsewhere)
    train(overwrite=True)
    assert (elsewhere / "x").read_text() == "mine"
    assert not (train.out / "checkpoints").exists()


def test_a_run_of_an_earlier_version_is_removed_by_the_names_of_that_time(train):
    train()
    state = state_of(train.out)
    del state["artifacts"]
    (train.out / "run.json").write_text(json.dumps(state))
    (train.out / "loss.png").write_text("x")
    (train.out / "talk").unlink()
    train(overwrite=True)
    assert not (train.out / "loss.png").exists()


def test_what_a_killed_process_left_is_in_nobodys_way(train):
    train.out.mkdir()
    (train.out / ".run.json.new").write_text("{")
    train()
    state = state_of(train.out) | {"status": "running", "running": {"pid": 1}}
    (train.out / "run.json").write_text(json.dumps(state))
    with pytest.raises(RecipeError, match=r"holds a run that is interrupted \(killed\)"):
        train()


DAMAGED = ["", "[]", "{}", "{", "7", '{"stages": []}', "[" * 100_000, '{"status": 5}', "\x00"]


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_run_json_has_a_way_out(train, text):
    train()
    (train.out / "run.json").write_text(text)
    for how in ({}, {"resume": True}):
        with pytest.raises(RunError, match=r"run.json: is damaged: ") as error:
            train(**how)
        assert "--overwrite" in error.value.hint
    train(overwrite=True)
    assert state_of(train.out)["status"] == "completed"


@pytest.mark.parametrize(
    "change",
    [
        {"path": "../elsewhere"},
        {"path": "/etc"},
        {"path": "link"},
        {"path": "a/../../b"},
        {"path": 5},
        {"path": "\x00"},
        {"path": "loop"},
        {"path": "gone"},
        {"steps": "x"},
        {"steps": float("inf")},
        {"weights": "pickle"},
        {"metrics": 5},
        {"weights": None},
    ],
    ids=str,
)
def test_a_stage_of_a_stranger_stays_in_its_folder(tmp_path, change):
    for name in ("out/model", "elsewhere", "b"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "out/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "out/loop").symlink_to(tmp_path / "out/loop")
    good = {"path": "model", "weights": "model", "steps": 1, "tokens": 1, "metrics": {}}
    assert folder.result(tmp_path / "out", good).path == tmp_path / "out/model"
    with pytest.raises(RunError):
        folder.result(tmp_path / "out", good | change)


@pytest.mark.parametrize("stage", [5, None, [], "x", {}], ids=str)
def test_a_stage_that_is_none(tmp_path, stage):
    with pytest.raises(RunError, match=r"run.json: describes no stage"):
        folder.result(tmp_path, stage)


def test_a_run_folder_without_its_model_is_an_error_and_no_name_of_a_hub(train):
    train()
    opened = run.open_run(train.out)
    (train.out / "model").rename(train.out / "moved")
    with pytest.raises(RunError, match=r"out/model: there is no such folder"):
        opened.load_policy()
    calls = [call for call in sys.modules["tw_mine"].CALLS if isinstance(call, tuple)]
    loaded = [call[1] for call in calls if call[0] == "load_model"]
    assert loaded == ["some/model"]  # of the training itself


def test_a_copy_of_a_checkpoint_is_none(tmp_path):
    for name in ("step-3", "step-12", "step-12-backup", "step-x", "step-", "step-99", "step-²"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        if name != "step-99":
            (tmp_path / "checkpoints" / name / "manifest.json").touch()
    assert folder.last_checkpoint(tmp_path) == tmp_path / "checkpoints/step-12"


def test_the_home_folder_may_be_written_as_a_tilde(train, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    result = train("output=~/runs/a")
    assert result.path == tmp_path / "home/runs/a/model"
    assert not (tmp_path / "~").exists()
    assert run.open_run("~/runs/a").folder == tmp_path / "home/runs/a"


def test_resolved_recipes_can_be_trained_twice(train, tmp_path):
    train()
    resolved = check.resolve(tmp_path / "r.yaml")
    assert run.train(resolved, overwrite=True).steps == run.train(resolved, overwrite=True).steps
