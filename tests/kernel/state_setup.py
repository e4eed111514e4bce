"""A run with a stage that talks, waits, stops and fails as its options say."""

import json

import pytest

import kernel_fakes as fakes
from tunewright import run

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
