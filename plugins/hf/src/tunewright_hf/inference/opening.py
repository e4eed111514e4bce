"""Open what answers: a run, a checkpoint of one, an adapter or a model, without a recipe."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tunewright import RecipeError, RunError, folder, registry
from tunewright.check import Resolved
from tunewright.context import Run
from tunewright.detection import detect_family
from tunewright.events import Event
from tunewright.model_half import resolve_model
from tunewright.run import open_run, resolve_run, use_stored_template
from tunewright.types import Head, StageResult
from tunewright_hf.inference.opened_runs import AdapterRun, CheckpointRun, OpenedRun
from tunewright_hf.models import hub

__all__ = ["open_target", "parse_adapters"]

_ADAPTER = "adapter_config.json"
_EXPECTED = (
    "expected a run folder (run.json), its checkpoints/step-N, an adapter (adapter_config.json) "
    "or a model (config.json)"
)


def open_target(
    target: str,
    overrides: Sequence[str] = (),
    *,
    data: bool = False,
    trust_remote_code: bool = False,
    on_event: Callable[[Event], None] | None = None,
) -> Run:
    """Open a run folder, a checkpoint or a stage's result in one, an adapter's folder, a model's
    folder, or a hub id of either. `run.load_policy` then loads it, and `open_engine` answers.

    overrides: such as `template=chatml`. Without a run, family, template and quantizer are
    detected. data: with a dataset plugin, for verbs that read data. Raises TunewrightError.
    """
    how: dict[str, Any] = {"trust_remote_code": trust_remote_code, "on_event": on_event}
    path = Path(target).expanduser()
    if (path / folder.RUN_FILE).is_file():
        return open_run(path, _with_family_of(path, overrides), **how)
    if run := _part_of_run(path, overrides, how):
        return run
    if (path / _ADAPTER).is_file():
        return _adapter(path, overrides, data, how)
    config = {} if target == "tiny" else hub.read_config(target, None)
    if config is None and not path.is_dir() and (found := hub.locate(target) / _ADAPTER).is_file():
        return _adapter(found.parent, overrides, data, how)
    if config is None:
        raise RecipeError("holds nothing that answers", place=target, hint=_EXPECTED)
    resolved = resolve_model(target, _with_family(target, overrides), data=data)
    pair = str(config.get("pair_prompt") or "")
    return OpenedRun(resolved, None, _head(config), pair_prompt=pair, **how)


def _head(config: dict[str, Any]) -> Head:
    """Reward models are saved as classifiers with one class, and no problem."""
    names = config.get("architectures")
    if isinstance(names, list) and "ForTokenClassification" in str(names[:1]):
        return "steps"
    if not isinstance(names, list) or "ForSequenceClassification" not in str(names[:1]):
        return "causal_lm"
    labels = config.get("id2label") or {"0": "", "1": ""}  # two are not written
    is_reward = len(labels) == 1 and not config.get("problem_type")
    return "score" if is_reward else "classes"


def parse_adapters(given: Sequence[str]) -> dict[str, Path]:
    """Folders of adapters by name, from NAME=PATH. A run folder stands for the adapter in it.
    Raises RecipeError."""
    found: dict[str, Path] = {}
    for each in given:
        name, equals, path = each.partition("=")
        if not (name and equals and path):
            raise RecipeError(f"expected NAME=PATH, found {each!r}", place="--adapter")
        if name in found:
            raise RecipeError(f"two models are named {name!r}", place="--adapter")
        place = Path(path).expanduser()
        if not place.is_dir():
            raise RecipeError(f"there is no folder {path}", place="--adapter")
        inner = place / "model"
        found[name] = inner if (inner / _ADAPTER).is_file() else place
    return found


def _with_family(model: str, overrides: Sequence[str]) -> list[str]:
    """Overrides that name the family, where some are of its options alone."""
    names = {text.partition("=")[0] for text in overrides}
    named = {"family", "family.name"} & names
    if named or not any(name.startswith("family.") for name in names):
        return [*overrides]
    given = [text.partition("=")[2] for text in overrides if text.startswith("model=")]
    return [f"family={detect_family((given or [model])[-1])}", *overrides]


def _with_family_of(path: Path, overrides: Sequence[str]) -> list[str]:
    """The same for a run folder, whose recipe may name the family, with options that stay."""
    recipe: dict[str, Any] = (folder.read(path) or {})["recipe"]
    if recipe.get("family"):
        return [*overrides]
    return _with_family(str(recipe.get("model")), overrides)


# ---- parts of a run ------------------------------------------------------------------------------


def _part_of_run(path: Path, overrides: Sequence[str], how: dict[str, Any]) -> Run | None:
    """The run around a checkpoint, or around the result of a stage; None for other folders."""
    if not path.is_dir():
        return None
    real = path.resolve()
    is_checkpoint = real.parent.name == "checkpoints" and real.name.startswith("step-")
    base, number = real.parents[1] if is_checkpoint else real.parent, 0
    around = base
    if base.parent.name == "stages" and (first := base.name.partition("-")[0]).isdecimal():
        around, number = base.parents[1], int(first) - 1
    if not (around / folder.RUN_FILE).is_file():
        return None
    resolved, state = resolve_run(around, _with_family_of(around, overrides))
    done = [folder.result(around, each) for each in state["stages"]]
    if not 0 <= number < len(resolved.stages):
        return None
    heads: list[Head] = [stage.choice.plugin.head for stage in resolved.stages]
    run: Run
    if is_checkpoint:
        earlier = zip(done[:number], heads, strict=False)
        policies = [result for result, head in earlier if head == "causal_lm"]
        prior = policies[-1] if policies else None
        run = CheckpointRun(resolved, prior, heads[number], path, number=number, **how)
        run.begin_stage(number)
    elif found := [each for each in done if each.path.resolve() == real]:
        run = OpenedRun(resolved, found[0], heads[number], number, **how)
    else:
        return None
    use_stored_template(run, state)
    return run


# ---- adapters ------------------------------------------------------------------------------------


def _adapter(path: Path, overrides: Sequence[str], data: bool, how: dict[str, Any]) -> Run:
    """An adapter in PEFT's format that stands alone."""
    config = hub.read_json(path / _ADAPTER)
    plugin = _plugin_of(str(config.get("peft_type")), path)
    model = _base(config, path, overrides)
    given = _with_family(model, overrides)
    resolved: Resolved = resolve_model(model, given, data=data, adapter=plugin)
    if resolved.choices["adapter"].entry.name != plugin:
        problem = f"is an adapter of type {config.get('peft_type')}, which {plugin} reads"
        raise RecipeError(problem, place=str(path), hint="leave adapter= out")
    return AdapterRun(resolved, StageResult(path, "adapter"), "causal_lm", **how)


def _plugin_of(kind: str, path: Path) -> str:
    """Name of the installed plugin for this type of PEFT."""
    for entry in registry.entries("adapter"):
        if getattr(registry.load(entry), "peft_type", None) == kind:
            return entry.name
    problem = f"is an adapter of type {kind!r:.60}, which no installed plugin reads"
    raise RecipeError(problem, place=str(path / _ADAPTER))


def _base(config: dict[str, Any], path: Path, overrides: Sequence[str]) -> str:
    """The adapter's base model: a hub id, or a folder below the current folder or beside the
    adapter. Any other path in a stranger's file has to be confirmed on the command line."""
    given = [text.partition("=")[2] for text in overrides if text.startswith("model=")]
    if given:
        return given[-1]
    place = f"{path / _ADAPTER}: base_model_name_or_path"
    name = config.get("base_model_name_or_path")
    if not isinstance(name, str) or not name or not name.isprintable():
        raise RecipeError("names no model", place=place, hint="name it: model=FOLDER or model=ID")
    try:
        found = [p for p in (Path(name), path / name) if (p / "config.json").is_file()]
        roots = (Path.cwd(), path.resolve().parent)
        allowed = [p for p in found if any(p.resolve().is_relative_to(r) for r in roots)]
        is_path = bool(found) or Path(name).is_absolute() or name.startswith((".", "~"))
    except (OSError, ValueError, RuntimeError) as error:
        raise RunError(f"cannot be used: {error}", place=place) from error
    if allowed:
        return str(allowed[0])
    if is_path:
        problem = f"{name} is not below the current folder, nor beside the adapter"
        problem = problem if found else f"{name} holds no model"
        raise RecipeError(problem, place=place, hint=f"name the model: model={name}")
    return name
