"""The run folder: locking, overwriting, and run.json, the run's description of itself."""

import json
import math
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from pydantic import ValidationError

from tunewright import registry
from tunewright.errors import RecipeError, RunError
from tunewright.kinds import kinds
from tunewright.recipe import Section
from tunewright.types import StageResult

RUN_FILE, RECIPE_FILE = "run.json", "recipe.yaml"
#: files that the kernel writes; plugins list theirs in `Plugin.artifacts`
ARTIFACTS = ("stages", "events.jsonl", RECIPE_FILE, RUN_FILE)
#: files of versions that did not write `artifacts` to run.json
_EARLIER = (
    "checkpoints",
    "model",
    "logs",
    "metrics.jsonl",
    "loss.png",
    "value_head.safetensors",
    "README.md",
)


#: required fields of run.json, with their types
_CONTENT = {"status": str, "stages": list, "data": dict, "recipe": dict, "libraries": dict}
#: left behind by a killed process
_LEFT = {".lock", f".{RUN_FILE}.new", f".{RECIPE_FILE}.new"}


@contextmanager
def locked(folder: Path, rank: int) -> Iterator[None]:
    """Lock the folder. Raises RunError if another run holds it."""
    if rank:
        yield
        return
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        hint = "wait for it, or change `output`"
        raise RunError("another run is writing here", place=str(folder), hint=hint) from error
    except (OSError, ValueError) as error:
        problem = f"cannot be written: {error}"
        raise RunError(problem, place=str(folder), hint="change `output`") from error
    try:
        yield
    finally:
        lock.release()


def read(folder: Path) -> dict[str, Any] | None:
    """Content of run.json; None if it does not exist. Raises RunError."""
    path = folder / RUN_FILE
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no run")
        for name, expected in _CONTENT.items():
            if not isinstance(found.get(name), expected):
                raise ValueError(f"{name} is missing or damaged")
    except (ValueError, RecursionError, OSError) as error:
        problem = f"is damaged: {' '.join(str(error).split())[:200]}"
        hint = "put the file back, or train anew with --overwrite"
        raise RunError(problem, place=str(path), hint=hint) from error
    return found


def write(folder: Path, name: str, text: str) -> None:
    """Replace a file of the folder atomically. Raises RunError."""
    temporary = folder / f".{name}.new"
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, folder / name)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        problem = f"cannot be written: {error.strerror}"
        raise RunError(problem, place=str(folder / name)) from error


def claim(
    folder: Path,
    recipe: dict[str, Any],
    artifacts: list[str],
    *,
    overwrite: bool,
) -> dict[str, Any]:
    """Prepare the folder for a new run, and return its state.

    artifacts: names that the run's plugins write in it. Raises RecipeError if the folder holds
    something that must not be lost.
    """
    state: dict[str, Any] = {
        "status": "running",
        "resumed": False,
        "seed": recipe["training"]["seed"],
        "data": {},
        "stages": [],
        "artifacts": artifacts,
        "recipe": recipe,
        **versions(recipe),
    }
    _make_room(folder, artifacts, overwrite)
    save(folder, state, 0)
    write_recipe(folder, recipe)
    return state


def write_recipe(folder: Path, recipe: dict[str, Any]) -> None:
    """Write recipe.yaml."""
    write(folder, RECIPE_FILE, yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))


def _make_room(folder: Path, artifacts: list[str], overwrite: bool) -> None:
    """Remove an earlier run if allowed. Raises RecipeError if not."""
    hint = "choose another `output`, or --overwrite"
    there = {path.name for path in folder.iterdir()} - _LEFT
    if RUN_FILE not in there:
        if there and not overwrite:
            problem = "is not empty, and holds no run of ours"
            raise RecipeError(problem, place=str(folder), hint=hint)
        if strange := sorted(there & {*artifacts, *ARTIFACTS}):
            problem = f"holds {strange[0]}, which no run of ours has written"
            raise RecipeError(problem, place=str(folder), hint="choose another `output`")
        return
    old: dict[str, Any] = {}
    try:
        old = read(folder) or {}
    except RunError:
        if not overwrite:
            raise
    # otherwise it failed before training
    trained = old.get("data") or old.get("status") != "failed"
    if trained and not overwrite:
        # this process holds the lock: a run marked as running was killed
        status = {"running": "interrupted (killed)"}.get(old["status"], old["status"])
        if status != "completed":
            command = f"tunewright train {folder / RECIPE_FILE} --resume"
            hint = f"go on with: {command}; or --overwrite"
        raise RecipeError(f"holds a run that is {status}", place=str(folder), hint=hint)
    for name in sorted({*ARTIFACTS, *artifacts_of(old)} & there):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def artifacts_of(state: dict[str, Any]) -> set[str]:
    """Names in the run folder that the plugins of this run have written."""
    written = state.get("artifacts")
    return set(map(str, written)) if isinstance(written, list) else set(_EARLIER)


def save(folder: Path, state: dict[str, Any], rank: int) -> None:
    """Write run.json, on rank 0."""
    if not rank:
        write(folder, RUN_FILE, json.dumps(finite(state), indent=1, ensure_ascii=False) + "\n")


def finite(value: Any) -> Any:
    """The value with None in place of numbers that JSON cannot hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def describe(folder: Path, name: str, result: StageResult, rows: int) -> dict[str, Any]:
    """Entry of a finished stage for run.json. Its path is relative to the run folder, which may be
    moved."""
    numbers = {"steps": result.steps, "tokens": result.tokens, "rows": rows}
    path = result.path.relative_to(folder).as_posix()
    return {
        "name": name,
        "path": path,
        "weights": result.saves,
        **numbers,
        "metrics": result.metrics,
    }


def stages(folder: Path) -> list[dict[str, Any]]:
    """Finished stages of the run in this folder. Raises RunError if run.json is damaged."""
    return list((read(folder) or {}).get("stages", []))


def result(folder: Path, stage: dict[str, Any], *, look: bool = True) -> StageResult:
    """Result of a finished stage, from its entry in run.json. look: whether it has to be there.
    Raises RunError if it is damaged, or points outside the folder."""
    place = str(folder / RUN_FILE)
    try:
        path = PurePosixPath(stage["path"])
        numbers = int(stage["steps"]), int(stage["tokens"]), dict(stage["metrics"])
        found = StageResult(folder / path, stage["weights"], *numbers)
        if found.saves not in ("model", "adapter"):
            raise ValueError(f"weights is {found.saves!r}")
        inside = found.path.resolve().is_relative_to(folder.resolve())
    except (KeyError, TypeError, ValueError, OverflowError, OSError, RuntimeError) as error:
        said = " ".join(str(error).split())[:200]
        raise RunError(f"describes no stage: {said}", place=place) from error
    if path.is_absolute() or ".." in path.parts or not inside:
        raise RunError(f"stages: path {str(path)!r} leads out of the run folder", place=place)
    if look and not found.path.is_dir():
        hint = "it was removed or not copied: train again"
        raise RunError("there is no such folder", place=str(found.path), hint=hint)
    return found


def template(folder: Path, state: dict[str, Any]) -> Section | None:
    """The template, with all its options, that the run uses; None before its first load. Raises
    RunError where run.json is damaged."""
    try:
        written = state.get("template")
        return None if written is None else Section.model_validate(written)
    except ValidationError as error:
        place = str(folder / RUN_FILE)
        raise RunError("describes no template: expected a name and options", place=place) from error


def last_checkpoint(base: Path) -> Path | None:
    """The newest complete checkpoint `checkpoints/step-N`: its manifest is written last."""
    found = {
        int(path.parent.name[5:]): path.parent
        for path in base.glob("checkpoints/step-*/manifest.json")
        if path.parent.name[5:].isdecimal()
    }
    return found[max(found)] if found else None


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def versions(recipe: dict[str, Any] | None = None) -> dict[str, Any]:
    """Versions of Python, the libraries, and the plugins of a recipe (without one: all)."""
    libraries = (
        "torch",
        "transformers",
        "trl",
        "peft",
        "datasets",
        "accelerate",
        "tokenizers",
        "safetensors",
    )
    found = {name: _installed(name) for name in ("tunewright", *libraries)}
    plugins = {}
    for kind in kinds():
        for entry in registry.entries(kind):
            if recipe is None or entry.name in _named(recipe, kind):
                plugins[f"{kind} {entry.name}"] = f"{entry.distribution} {entry.version}"
    return {
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        "libraries": {name: version for name, version in found.items() if version},
        "plugins": plugins,
    }


def _named(recipe: dict[str, Any], kind: str) -> set[str]:
    found = recipe.get(kind) or recipe.get(f"{kind}s") or []
    return {
        each["name"].rpartition(":")[2] for each in (found if isinstance(found, list) else [found])
    }
