"""What the tests put a plugin on: a run that does nothing, calls that go the way the kernel's go,
and a tiny twin."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tunewright.events import Event
from tunewright.recipe import Recipe
from tunewright.registry import Entry, PluginCaller, entries, load
from tunewright.types import LoadedModel, LoadRequest
from tunewright_conformance.subjects import build, twins


@dataclass
class Bench:
    """Stands where hooks expect the run, for plugins that need no other plugin."""

    folder: Path
    rank: int = 0
    world_size: int = 1
    trust_remote_code: bool = False
    events: list[Event] = field(default_factory=list)

    @property
    def recipe(self) -> Recipe:
        data = [{"path": "data.jsonl"}]
        return Recipe.model_validate(
            {"model": "tiny", "data": data, "stages": ["sft"], "output": str(self.folder)}
        )

    def emit(self, event: Event) -> None:
        self.events.append(event)


def on_bench(entry: Entry, **options: Any) -> PluginCaller:
    """The plugin, ready to be called as a run calls it, without accelerators."""
    return PluginCaller(entry, build(entry, **options))


def a_family() -> Entry:
    """The installed family that is used where a test of another kind needs a model."""
    found = entries("family")
    if not found:
        pytest.skip("no family plugin is installed, such as tunewright-llama")
    return found[0]


def family_options(family: Entry, twin: str | None = None) -> dict[str, Any]:
    """float32 on the CPU, where what is equal is equal to the bit, of families that have these
    options."""
    wanted = {"device": "cpu", "dtype": "float32", "tiny_variant": twin}
    return {
        name: value
        for name, value in wanted.items()
        if value and name in load(family).Options.model_fields
    }


def load_model(
    family: Entry, twin: str | None, folder: Path, model: str = "tiny", **request: Any
) -> LoadedModel:
    """A tiny twin, or what was saved of one."""
    handle = on_bench(family, **family_options(family, twin))
    loaded: LoadedModel = handle.call(
        "load_model", run=Bench(folder), request=LoadRequest(model, **request)
    )
    return loaded


def a_model(folder: Path, model: str = "tiny", **request: Any) -> LoadedModel:
    """The first tiny twin of some family."""
    family = a_family()
    return load_model(family, twins(family)[0], folder, model, **request)
