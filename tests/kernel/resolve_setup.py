"""Recipes whose plugins count what they are asked."""

import sys

import pytest

from tunewright import check, cli

COUNTED = """
from pydantic import model_validator
from tunewright import Problem

COUNTS = {}
OBJECTED = []

def counting(name):
    class Options(PluginOptions):
        rank: int = Field(8, gt=0)
        size: int | None = 4
        object_to: str = ""

        @model_validator(mode="after")
        def count(self):
            COUNTS[name] = COUNTS.get(name, 0) + 1
            return self
    return Options

class Counted(Plugin):
    def objections(self, recipe):
        OBJECTED.append((self.at, recipe.options("adapter").rank))
        if self.options.object_to:
            yield Problem((*self.at, "rank"), "rank does not suit", "take another")
            yield Problem(("training", "max_length"), f"{self.options.object_to} objects")

class Family(Counted):
    Options = counting("family")
    @hookimpl
    def load_model(self): ...

class Adapter(Counted):
    Options = counting("adapter")
    @hookimpl
    def apply_adapter(self): ...

class Dataset(Counted):
    Options = counting("dataset")
    class Entry(PluginOptions):
        path: str
        @model_validator(mode="after")
        def count(self):
            COUNTS["entry"] = COUNTS.get("entry", 0) + 1
            return self
    @hookimpl
    def build_dataset(self): ...

class Optimizer(Counted):
    Options = counting("optimizer")
    @hookimpl
    def build_optimizer(self): ...

class Engine(Counted):
    Options = counting("engine")
    @hookimpl
    def open_engine(self): ...

class Logger(Counted):
    Options = counting("logger")
    @hookimpl
    def report(self): ...

class MineStage(Counted, Stage):
    Options = counting("stage")
    rows = "messages"
    @hookimpl
    def train_stage(self): ...

class Raises(Plugin):
    class Options(PluginOptions):
        where: str = "objections"
        @model_validator(mode="after")
        def fails(self):
            if self.where == "options":
                raise KeyError("oops")
            return self
    def __init__(self, options, name=""):
        if options.where == "init":
            raise ZeroDivisionError("nought")
        super().__init__(options, name)
    def objections(self, recipe):
        raise AttributeError("no such thing")
    @hookimpl
    def apply_adapter(self): ...
"""
POINTS = {
    kind: {"mine": f"tw_counted:{kind.title()}"}
    for kind in ("family", "adapter", "dataset", "optimizer", "engine", "logger")
} | {"stage": {"mine": "tw_counted:MineStage"}}
POINTS["adapter"]["raises"] = "tw_counted:Raises"
RECIPE = """\
model: some/model
family: mine
adapter: {name: mine, rank: 4}
dataset: mine
optimizer: mine
engine: mine
loggers: [mine, mine]
data:
  - {path: a.jsonl}
stages: [mine, {name: mine, rank: 2}]
training: {learning_rate: 1e-4}
output: out
"""


@pytest.fixture
def file(tmp_path, install):
    install("tw-counted", POINTS, "from pydantic import Field\n" + COUNTED)

    def write(*changes: str):
        text = RECIPE
        for before, after in zip(changes[::2], changes[1::2], strict=True):
            assert before in text
            text = text.replace(before, after)
        (tmp_path / "r.yaml").write_text(text)
        return tmp_path / "r.yaml"

    return write


def module():
    return sys.modules["tw_counted"]


def problems(path, *overrides: str) -> list[str]:
    with pytest.raises(check.RecipeProblems) as found:
        check.resolve(path, overrides)
    return [line.removeprefix(f"{path.parent}/") for line in found.value.lines]


def command(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["tunewright", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return (ended.value.code, *capsys.readouterr())
