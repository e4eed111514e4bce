"""Export a run's model, and compare it with the run."""

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright import RecipeError, TunewrightError
from tunewright import folder as run_folder
from tunewright.overrides import named_values
from tunewright.terminal import printable
from tunewright.types import ExportRequest, LoadedModel, LoadRequest
from tunewright_export.card import write_card
from tunewright_export.parts import Part

if TYPE_CHECKING:
    from tunewright.run import Run


def export(run: "Run", to: str, options: list[str], output: Path, parts: list[Part]) -> None:
    """Write the model of a run to the new folder `output`, in the format `to`, with a report
    in export.json.

    parts: adapters that are combined in place of the run's own. Raises RecipeError if the format
    does not fit, RunError if the export differs from the run or cannot be written. The folder then
    does not appear.
    """
    from tunewright_export.compare import Probes, compare
    from tunewright_hf.checkpoints.folder import write_folder

    exporter = run.named("exporter", to, **named_values(options))
    if run.policy_head not in exporter.plugin.heads:
        problem = f"{to} writes language models, and this one has the head {run.policy_head}"
        hint = "take --to safetensors"
        raise RecipeError(problem, place="command line: --to", hint=hint)
    loaded = _combined(run, parts) if parts else run.load_policy(run.policy_head)
    probes = Probes(run, loaded)
    hidden = ""  # the folder in which it is written, which nobody has named

    def write(folder: Path) -> None:
        nonlocal hidden
        hidden = str(folder)
        request = ExportRequest(loaded, folder, run.recipe.model, _say)
        how = exporter.call("export_model", run=run, request=request)
        found: dict[str, Any] = {
            "format": to,
            "options": exporter.plugin.options.model_dump(mode="json"),
            "model": run.recipe.model,
            "adapters": [{"path": path.name, "weight": weight} for path, weight in parts],
        }
        found |= compare(run, exporter.plugin, request, probes)
        write_card(folder, _state(run), found)
        text = json.dumps(found, indent=1, ensure_ascii=False)
        (folder / "export.json").write_text(text + "\n", encoding="utf-8")
        _say(how)

    try:
        with _terminated_as_interrupted():
            write_folder(output, write)
    except TunewrightError as error:
        if hidden:
            _name(error, hidden, output)
        raise


def _state(run: "Run") -> dict[str, Any]:
    """Content of run.json for the card. Of a part of a run: without the results of its end. Of a
    model that was not trained here: names and versions."""
    from tunewright_hf.inference.opened_runs import OpenedRun

    found = run_folder.read(run.folder)
    if found and isinstance(run, OpenedRun):
        part = run.policy_folders()[0].resolve().relative_to(run.folder.resolve())
        return found | {"stages": [], "part": str(part)}
    return found or {"recipe": {"model": run.recipe.model}, "stages": [], **run_folder.versions({})}


def is_export(folder: Path, to: str) -> bool:
    """Whether a folder holds an export in the format `to`."""
    try:
        report = json.loads((folder / "export.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(report, dict) and report.get("format") == to


def _name(error: TunewrightError, hidden: str, output: Path) -> None:
    """Have an error name the folder that the user named."""
    if error.problem.startswith("cannot be written"):
        error.place = str(output)
        error.hint = "nothing of it is left; make room, or name another disk: --output"
    error.problem = error.problem.replace(hidden, str(output))
    error.place = error.place.replace(hidden, str(output))


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Have SIGTERM end the export as Ctrl-C does: what was half-written is removed."""
    if threading.current_thread() is not threading.main_thread():  # Python handles no signals there
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _combined(run: "Run", parts: list[Part]) -> LoadedModel:
    """The run's base model with the weighted sum of adapters."""
    from tunewright_hf.models.peft_combine import combined

    request = LoadRequest(
        run.recipe.model, trust_remote_code=run.trust_remote_code, trainable=False
    )
    base: LoadedModel = run.call("family", "load_model", request)
    if run.template is None:
        run.load(weights="none")
    return combined(run.plugin("adapter"), base, parts)


def _say(message: str) -> None:
    print(printable(message), file=sys.stderr)
