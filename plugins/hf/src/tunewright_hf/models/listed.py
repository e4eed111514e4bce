"""Checkpoints in families' checkpoints.toml and tiny.toml, read without importing the families."""

import functools
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tunewright import registry

__all__ = ["checkpoints", "find", "read"]


@dataclass(frozen=True, slots=True)
class Listed:
    """A checkpoint of a [[line]]. Its own fields override those of the line."""

    package: str  # of the family that lists it
    id: str  # on the hub
    template: str
    twin: str | None = None  # name of a [[twin]] of the same package
    tied: bool | None = None  # whether head and embeddings share a weight; None: as in the twin
    model_type: str | None = None  # of its config.json; None: the twin's
    modelscope: str | None = None  # id on ModelScope
    #: options of the template in which the checkpoint differs from others, such as `system`
    template_options: dict[str, Any] = field(default_factory=dict)


def find(model: str, package: str | None = None) -> Listed | None:
    """The checkpoint with this hub or ModelScope id, first in this package, else in that of any
    installed family.

    A checkpoint may stand in its maker's list and be loaded by the family of its architecture, as
    the distilled models of DeepSeek-R1 are.
    """
    others = [entry.value.partition(":")[0] for entry in registry.entries("family")]
    packages = [package] if package else []
    for name in dict.fromkeys([*packages, *(name.partition(".")[0] for name in others)]):
        if model in _text(name, "checkpoints.toml"):
            for each in checkpoints(name):
                if model in (each.id, each.modelscope):
                    return each
    return None


def checkpoints(package: str) -> Iterator[Listed]:
    """Checkpoints that a package lists, in the order of its file."""
    keys = Listed.__dataclass_fields__.keys()
    for line in read(package, "checkpoints.toml").get("line", ()):
        for checkpoint in line["checkpoints"]:
            table = line | checkpoint
            yield Listed(package, **{key: table[key] for key in keys & table.keys()})


def read(package: str, name: str) -> dict[str, Any]:
    """Content of a TOML file in a package; empty if there is none. The package is not imported."""
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
