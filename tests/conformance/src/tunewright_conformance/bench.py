"""Fixtures for plugins: a run that does nothing, calls as the kernel makes them, and a tiny
twin."""

from pathlib import Path
from typing import Any

import pytest

from tunewright.registry import Entry, PluginCaller, entries, load
from tunewright.types import LoadedModel, LoadRequest
from tunewright_conformance.doubles import FakeRun
from tunewright_conformance.subjects import build, twins


def on_bench(entry: Entry, **options: Any) -> PluginCaller:
    """The plugin as a run calls it, without accelerators."""
    return PluginCaller(entry, build(entry, **options))


def a_family() -> Entry:
    """The installed family used where a test of another kind needs a model."""
    found = entries("family")
    if not found:
        pytest.skip("no family plugin is installed, such as tunewright-llama")
    return found[0]


def family_options(family: Entry, twin: str | None = None) -> dict[str, Any]:
    """Options for float32 on the CPU, where equal results are equal bit for bit, if the family has
    them."""
    wanted = {"device": "cpu", "dtype": "float32", "tiny_variant": twin}
    return {
        name: value
        for name, value in wanted.items()
        if value and name in load(family).Options.model_fields
    }


def load_model(
    family: Entry, twin: str | None, folder: Path, model: str = "tiny", **request: Any
) -> LoadedModel:
    """Load a tiny twin, or the saved result of one."""
    handle = on_bench(family, **family_options(family, twin))
    loaded: LoadedModel = handle.call(
        "load_model", run=FakeRun(folder), request=LoadRequest(model, **request)
    )
    return loaded


def a_model(folder: Path, model: str = "tiny", **request: Any) -> LoadedModel:
    """Load the first tiny twin of some family."""
    family = a_family()
    return load_model(family, twins(family)[0], folder, model, **request)
