"""What families list in their checkpoints.toml and tiny.toml, read without importing them."""

import functools
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tunewright import registry

__all__ = [
    "checkpoints",
]


@dataclass(frozen=True, slots=True)
class Listed:
    """A checkpoint of a [[line]]. What stands at the checkpoint itself wins over its line."""

    package: str  # of the family that lists it
    id: str  # on the hub
    template: str
    twin: str | None = None  # name of a [[twin]] of the same package
    tied: bool | None = None  # whether head and embeddings share a weight; None: as the twin says
    model_type: str | None = None  # of its config.json; None: the twin's
    modelscope: str | None = None  # its id there


def find(model: str, package: str) -> Listed | None:
    """The checkpoint with this hub or ModelScope id, in this package or that of another family.

    A checkpoint may stand in its maker's list and be loaded by the family of its architecture, as
    the distilled models of DeepSeek-R1 are.
    """
    others = [entry.value.partition(":")[0] for entry in registry.entries("family")]
    for name in dict.fromkeys([package, *(name.partition(".")[0] for name in others)]):
        if model in _text(name, "checkpoints.toml"):
            for each in checkpoints(name):
                if model in (each.id, each.modelscope):
                    return each
    return None


def checkpoints(package: str) -> Iterator[Listed]:
    """Those that a package lists, in the order of its file."""
    keys = Listed.__dataclass_fields__.keys()
    for line in read(package, "checkpoints.toml").get("line", ()):
        for checkpoint in line["checkpoints"]:
            table = line | checkpoint
            yield Listed(package, **{key: table[key] for key in keys & table.keys()})


def read(package: str, name: str) -> dict[str, Any]:
    """A TOML file of a package, empty where there is none. The package is not imported."""
    return _parsed(_text(package, name))


@functools.cache
def _text(package: str, name: str) -> str:
    spec = find_spec(package)
    folders = (spec.submodule_search_locations or []) if spec else []
    found = [path for folder in folders if (path := Path(folder, name)).is_file()]
    return found[0].read_text("utf-8") if found else ""


@functools.cache
def _parsed(text: str) -> dict[str, Any]:
    return tomllib.loads(text)
