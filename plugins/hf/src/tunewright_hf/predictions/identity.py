"""Digests by which a policy is known again, from the state of its files."""

import hashlib
import json
from pathlib import Path
from typing import Any

from tunewright import folder
from tunewright.context import Run
from tunewright_hf.inference.opened_runs import OpenedRun

__all__ = ["policy_digest", "run_digest"]

#: files of a model, an adapter or a checkpoint
_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model")


def policy_digest(run: Run) -> str:
    """Digest of what `run.load_policy` loads, before the command line's changes. Raises RunError if
    a model is not to be had."""
    if not isinstance(run, OpenedRun):
        return run_digest(run.folder)
    run.load(weights="none")  # which finds the family, and the template
    told: list[Any] = [run.recipe.model, run.template and run.template.model_dump(mode="json")]
    for place in run.policy_folders():
        told += [_state(file) for pattern in _FILES for file in sorted(place.glob(pattern))]
    return _digest(told)


def run_digest(path: Path) -> str:
    """Digest of what a run folder has trained: stages, template, and state of the weight files."""
    state = folder.read(path) or {}
    stages = state.get("stages", [])
    told: list[Any] = [stages, state.get("template"), state.get("data")]
    for stage in stages[-1:]:
        told += [
            _state(file) for file in sorted(path.joinpath(stage["path"]).glob("*.safetensors"))
        ]
    return _digest(told)


def _state(file: Path) -> list[Any]:
    found = file.stat()
    return [file.name, found.st_size, found.st_mtime_ns]


def _digest(told: list[Any]) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
