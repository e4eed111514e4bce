"""What families list in their checkpoints.toml and tiny.toml, read without importing them."""

import functools
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tunewright import registry


@dataclass(frozen=True, slots=True)
class Listed:
    """A checkpoint of a [[line]]. What stands at the checkpoint itself wins over its line."""

    package: str  # of the family that lists it
    template: str
    twin: str | None = None  # name of a [[twin]] of the same package
    tied: bool | None = None  # whether head and embeddings share a weight; None: as the twin says
    model_type: str | None = None  # of its config.json; None: the twin's


def find(model: str, package: str) -> Listed | None:
    """The checkpoint with this hub or ModelScope id, in this package or that of another family.

    A checkpoint may stand in its maker's list and be loaded by the family of its architecture, as
    the distilled models of DeepSeek-R1 are.
    """
    others = [entry.value.partition(":")[0] for entry in registry.entries("family")]
    packages = dict.fromkeys([package, *(name.partition(".")[0] for name in others)])
    for name in packages:
        if model in _text(name, "checkpoints.toml"):
            for line, checkpoint in _checkpoints(name):
                if model in (checkpoint["id"], checkpoint.get("modelscope")):
                    return _listed(name, line | checkpoint)
    return None


def of_model_type(model_type: str, package: str) -> Listed | None:
    """The first checkpoint that a package lists with this `model_type`, one that is not its
    twin's."""
    for line, checkpoint in _checkpoints(package):
        if (line | checkpoint).get("model_type") == model_type:
            return _listed(package, line | checkpoint)
    return None


def read(package: str, name: str) -> dict[str, Any]:
    """A TOML file of a package, {} where there is none. The package is not imported."""
    return _parsed(_text(package, name))


def _checkpoints(package: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for line in read(package, "checkpoints.toml").get("line", ()):
        for checkpoint in line["checkpoints"]:
            yield line, checkpoint


def _listed(package: str, table: dict[str, Any]) -> Listed:
    keys = ("template", "twin", "tied", "model_type")
    return Listed(package, **{key: table[key] for key in keys if key in table})


@functools.cache
def _text(package: str, name: str) -> str:
    spec = find_spec(package)
    folders = (spec.submodule_search_locations or []) if spec else []
    found = [path for folder in folders if (path := Path(folder, name)).is_file()]
    return found[0].read_text("utf-8") if found else ""


@functools.cache
def _parsed(text: str) -> dict[str, Any]:
    return tomllib.loads(text)
