"""Digests by which a policy is known again, from the state of its files."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunewright import folder

__all__ = ["files_digest", "run_digest"]

#: files of a model, an adapter or a checkpoint
_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model")


def files_digest(told: list[Any], folders: Sequence[Path]) -> str:
    """Digest of JSON values, and of the state of the model files in folders."""
    files = [file for place in folders for each in _FILES for file in sorted(place.glob(each))]
    return _digest([*told, *map(_state, files)])


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
