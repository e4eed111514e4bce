"""The run folder: who may write into it, and run.json, in which a run describes itself."""

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from tunewright import registry
from tunewright.errors import RecipeError, RunError
from tunewright.types import StageResult

RUN_FILE, RECIPE_FILE = "run.json", "recipe.yaml"
_MADE_BY_RUNS = (
    "checkpoints",
    "model",
    "stages",
    "logs",
    "metrics.jsonl",
    "loss.png",
    "value_head.safetensors",
    "README.md",
    RECIPE_FILE,
    RUN_FILE,
)
#: what a resumed run may change: who listens, how often, and how many processes, but not what is
#: trained
_MAY_DIFFER = {"loggers", "engine", "launch", "output", "data_root"}


@contextmanager
def locked(folder: Path, rank: int) -> Iterator[None]:
    """Hold the folder against a second run. Raises RunError where another one holds it."""
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
    except OSError as error:
        raise RunError(
            f"cannot be written: {error}", place=str(folder), hint="change `output`"
        ) from error
    try:
        yield
    finally:
        lock.release()


def read(folder: Path) -> dict[str, Any] | None:
    """What the run in this folder says of itself; None where there is none. Raises RunError."""
    path = folder / RUN_FILE
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(
            "is not valid JSON", place=str(path), hint="start anew with --overwrite"
        ) from error
    return found


def write(folder: Path, name: str, text: str) -> None:
    """Replace a file of the folder in one step: it is never seen half-written. Raises RunError."""
    temporary = folder / f".{name}.new"
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, folder / name)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(f"cannot be written: {error.strerror}", place=str(folder / name)) from error


def claim(
    folder: Path, recipe: dict[str, Any], *, rank: int, resume: bool, overwrite: bool
) -> dict[str, Any]:
    """Make the folder ready for this run and give its state: the one to go on from, or a new one.

    Only rank 0 writes. Raises RecipeError where the folder holds what must not be lost, or was made
    by another recipe.
    """
    old = read(folder)
    if resume and old:
        _check_same(old["recipe"], recipe, folder)
        return {**old, "status": "running", "resumed": True}
    state = {
        "status": "running",
        "resumed": False,
        "seed": recipe["training"]["seed"],
        "data": {},
        "stages": [],
    }
    state |= {"recipe": recipe, **versions(recipe)}
    if rank:
        return state
    hint = "choose another `output`, or --overwrite"
    if (
        old and not overwrite and (old["data"] or old["status"] != "failed")
    ):  # else it failed before it trained
        if old["status"] != "completed":
            hint = f"go on with: tunewright train {folder / RECIPE_FILE} --resume; or --overwrite"
        raise RecipeError(f"holds a run that is {old['status']}", place=str(folder), hint=hint)
    if not old and not overwrite and any(path.name != ".lock" for path in folder.iterdir()):
        raise RecipeError("is not empty, and holds no run of ours", place=str(folder), hint=hint)
    for name in _MADE_BY_RUNS if old else ():
        path = folder / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(
            missing_ok=True
        )
    write(folder, RECIPE_FILE, yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
    save(folder, state, rank)
    return state


def save(folder: Path, state: dict[str, Any], rank: int) -> None:
    """Write run.json, on rank 0."""
    if not rank:
        write(folder, RUN_FILE, json.dumps(state, indent=1, ensure_ascii=False) + "\n")


def describe(folder: Path, name: str, result: StageResult, rows: int) -> dict[str, Any]:
    """A finished stage as it stands in run.json; its path is below the run folder, so that the
    folder may move."""
    numbers = {
        "steps": result.steps,
        "tokens": result.tokens,
        "rows": rows,
        "metrics": result.metrics,
    }
    return {
        "name": name,
        "path": result.path.relative_to(folder).as_posix(),
        "weights": result.saves,
        **numbers,
    }


def result(folder: Path, stage: dict[str, Any]) -> StageResult:
    """What `describe` wrote."""
    return StageResult(
        folder / stage["path"], stage["weights"], stage["steps"], stage["tokens"], stage["metrics"]
    )


def last_checkpoint(base: Path) -> Path | None:
    """The newest complete checkpoint `checkpoints/step-N` of a stage: a manifest is the last thing
    written."""
    found = {
        int(path.parent.name[5:]): path.parent
        for path in base.glob("checkpoints/step-*/manifest.json")
    }
    return found[max(found)] if found else None


def _check_same(old: dict[str, Any], new: dict[str, Any], folder: Path) -> None:
    for key in sorted((old.keys() | new.keys()) - _MAY_DIFFER):
        if old.get(key) != new.get(key):
            raise RecipeError(
                f"{key} was {old.get(key)!r} when the run began, is {new.get(key)!r} now",
                place=str(folder),
                hint=(
                    f"go on with: tunewright train {folder / RECIPE_FILE} --resume; or "
                    "--overwrite to begin anew"
                ),
            )


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def versions(recipe: dict[str, Any] | None = None) -> dict[str, Any]:
    """Versions of Python, the libraries, and the plugins of a recipe (without one: all). Imports
    nothing."""
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
    for kind in registry.KINDS:
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
    sections = recipe.get(kind) or recipe.get(f"{kind}s") or []
    return {
        section["name"].rpartition(":")[2]
        for section in (sections if isinstance(sections, list) else [sections])
    }
