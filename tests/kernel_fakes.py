"""One plugin of every kind that a run needs, without torch: they write down what they were
asked."""

SOURCE = """
import json, time
from pathlib import Path
from tunewright import events
from tunewright.errors import RecipeError, RunError, Stopped
from tunewright.types import Data, LoadedModel, Rendered, StageResult

CALLS = []
LISTED = "listed"

class Family(Plugin):
    @hookimpl
    def load_model(self, request):
        CALLS.append(("load_model", request.model, request.head))
        return LoadedModel(
            ["weights"], "tokenizer", template="mine", template_options={"system": LISTED, "a": "b"}
        )

class Template(Plugin):
    class Options(PluginOptions):
        system: str | None = None
        a: str | None = None

    @hookimpl
    def format_template(self):
        return Rendered("")

class Adapter(Plugin):
    @hookimpl
    def apply_adapter(self, request):
        CALLS.append(("apply_adapter", request.adapter_path))
        return request.loaded

    @hookimpl
    def prepare_adapter(self, loaded, data):
        CALLS.append(("prepare_adapter", data.fingerprint))
        return loaded

class Dataset(Plugin):
    class Entry(PluginOptions):
        path: str

    @hookimpl
    def build_dataset(self, request):
        CALLS.append(("build_dataset", request.rows, [entry.path for entry in request.entries]))
        counts = {"rows_read": 3, "dropped": {"too long": 1}}
        return Data([1, 2], **counts, notes=["a note"], fingerprint=request.entries[0].path)

class Optimizer(Plugin):
    @hookimpl
    def build_optimizer(self): ...

class Engine(Plugin):
    @hookimpl
    def open_engine(self): ...

class MineStage(Stage):
    rows = "messages"
    class Options(PluginOptions):
        fail: str = ""

    @hookimpl
    def train_stage(self, run, request):
        folder = str(request.folder)
        CALLS.append(("train_stage", folder, request.checkpoint, request.training.epochs))
        run.emit(events.Logged(stage=self.name, step=1, total_steps=1, metrics={"loss": 1.0}))
        if self.options.fail == "error":
            raise RunError("the model broke", place="here")
        if self.options.fail.startswith("at "):
            raise RecipeError("is wrong", place=self.options.fail[3:])
        if self.options.fail == "bug":
            raise KeyError("oops")
        if self.options.fail == "stop":
            raise Stopped("stopped at step 1")
        if self.options.fail == "signal":
            import os, signal
            os.kill(os.getpid(), signal.SIGTERM)
            assert request.stop_requested()
            raise Stopped("stopped at step 1")
        path = request.folder / "model"
        path.mkdir(parents=True)
        return StageResult(path, "model", steps=1, tokens=10, metrics={"loss": 1.0})

class Score(MineStage):
    head = "score"

class Logger(Plugin):
    @hookimpl
    def report(self, event):
        CALLS.append(event.as_dict())

class Raises(Plugin):
    @hookimpl
    def report(self, event):
        raise ValueError("the server is gone")

class Slow(Plugin):
    @hookimpl
    def report(self, event):
        time.sleep(3600)
"""
KINDS = ("family", "template", "adapter", "dataset", "optimizer", "engine", "logger")
POINTS = {kind: {"mine": f"tw_mine:{kind.title()}"} for kind in KINDS} | {
    "stage": {"mine": "tw_mine:MineStage", "score": "tw_mine:Score"}
}
POINTS["template"] |= {"other": "tw_mine:Template"}
POINTS["logger"] |= {"raises": "tw_mine:Raises", "slow": "tw_mine:Slow"}
RECIPE = """\
model: some/model
family: mine
adapter: mine
dataset: mine
optimizer: mine
engine: mine
loggers: [mine]
data:
  - {path: a.jsonl}
stage: mine
output: %s
"""
