"""State files of a run: events.jsonl, run.json during the run and after it."""

import math
import os
import signal
import socket
import sys
import time

import pytest

from kernel.state_setup import events_of, state_of, train
from tunewright import events, run
from tunewright.errors import RunError, Stopped
from tunewright.state import StateWriter

__all__ = ["train"]


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
