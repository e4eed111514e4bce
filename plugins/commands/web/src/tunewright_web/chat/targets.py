"""Models that a chat can be held with: results and checkpoints of runs, folders, hub ids."""

import json
import re
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from tunewright import registry
from tunewright_web.errors import WebError

if TYPE_CHECKING:
    from tunewright_web.web import Web

__all__ = ["ChatModel", "arguments_of", "engine_names", "offered", "short_name"]

_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
_ADDRESS = re.compile(r"https?://[\w.:\[\]-]+(/[\w./-]*)?")
_STEP = re.compile(r"step-\d+")

Text = Annotated[str, Field(max_length=500)]


class ChatModel(BaseModel):
    """A model that answers: a run, a checkpoint of it, or a folder or hub id.

    engine: plugin; "": the recipe's. address: of a server that runs already, for vllm and sglang.
    template: of a model without a run.
    """

    model_config = ConfigDict(extra="forbid")

    run: Text = ""
    checkpoint: Text = ""
    model: Text = ""
    engine: Text = ""
    address: Text = ""
    template: Text = ""


def engine_names() -> list[str]:
    return sorted(entry.name for entry in registry.entries("engine"))


def short_name(model: ChatModel) -> str:
    """Name for people."""
    name = model.model or model.run
    if model.checkpoint:
        name = f"{name} · {model.checkpoint}"
    return f"{name} ({model.engine})" if model.engine else name


def arguments_of(web: "Web", model: ChatModel) -> list[str]:
    """Arguments of `tunewright serve`. Raises WebError."""
    target, base = _target(web, model)
    found: list[str] = []
    if model.engine:
        if model.engine not in engine_names():
            hint = f"there is: {', '.join(engine_names())}"
            raise WebError(f"engine: no plugin is called {model.engine!r:.60}", hint, status=422)
        found += ["--engine", model.engine]
    if model.address:
        if not _ADDRESS.fullmatch(model.address):
            problem = f"address: found {model.address!r:.120}"
            raise WebError(problem, "expected such as http://127.0.0.1:8000", status=422)
        if not model.engine:
            raise WebError("address: name the engine that runs there, too", status=422)
        found += ["--address", model.address]
    if base in web.trusted:
        found.append("--trust-remote-code")
    found += ["--", target]
    if model.template:
        if not re.fullmatch(r"[\w:.-]+", model.template):
            raise WebError(f"template: found {model.template!r:.80}", status=422)
        found.append(f"template={model.template}")
    return found


def _target(web: "Web", model: ChatModel) -> tuple[str, str]:
    """What `serve` opens, and the model that its recipe names. Raises WebError."""
    if bool(model.run) == bool(model.model):
        raise WebError("model: name a run or a model", status=422)
    if model.run:
        folder = web.workspace.run(model.run)
        base = _base(folder)
        if not model.checkpoint:
            return str(folder), base
        found = folder / "checkpoints" / model.checkpoint
        if not _STEP.fullmatch(model.checkpoint) or not found.is_dir():
            problem = f"the run {model.run} has no checkpoint {model.checkpoint!r:.60}"
            raise WebError(problem, status=404)
        return str(found), base
    if model.checkpoint:
        raise WebError("checkpoint: only of a run", status=422)
    if _HUB_ID.fullmatch(model.model) and not (web.workspace.root / model.model).exists():
        return model.model, model.model
    return str(web.workspace.readable(model.model)), model.model


def _base(folder: Any) -> str:
    try:
        return str(json.loads((folder / "run.json").read_text("utf-8"))["recipe"]["model"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def offered(web: "Web") -> list[tuple[str, str]]:
    """Results and checkpoints of runs, newest first: value of the form's field, and text."""
    found = []
    folders = [each for each in web.workspace.runs.iterdir() if (each / "run.json").is_file()]
    for folder in sorted(folders, key=lambda each: (each / "run.json").stat().st_mtime)[::-1]:
        if (folder / "model").exists():
            found.append((json.dumps({"run": folder.name}), folder.name))
        steps = [each.name for each in folder.glob("checkpoints/step-*") if each.is_dir()]
        for step in sorted(steps, key=lambda name: int(name.partition("-")[2] or 0))[::-1]:
            value = json.dumps({"run": folder.name, "checkpoint": step})
            found.append((value, f"{folder.name} · {step}"))
    return found
