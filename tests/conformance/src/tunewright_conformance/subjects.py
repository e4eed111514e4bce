"""Plugins to test: the installed ones, by their metadata. Nothing is imported to list them."""

import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tunewright import registry
from tunewright.errors import RecipeError, did_you_mean
from tunewright.kinds import kinds
from tunewright.plugin import Plugin
from tunewright.registry import Entry


def select(asked: list[str]) -> list[Entry]:
    """Installed plugins in `asked`, each as NAME or KIND:NAME; all if it is empty.

    Raises RecipeError for a name that no installed plugin has.
    """
    installed = [entry for kind in kinds() for entry in registry.entries(kind)]
    if not asked:
        return installed
    chosen = [
        entry
        for entry in installed
        if not {entry.name, f"{entry.kind}:{entry.name}"}.isdisjoint(asked)
    ]
    known = {name for entry in chosen for name in (entry.name, f"{entry.kind}:{entry.name}")}
    for name in asked:
        if name not in known:
            hint = did_you_mean(name, {entry.name for entry in installed})
            raise RecipeError(
                f"no installed plugin is called {name!r}", place="--plugin", hint=hint
            )
    return chosen


def label(entry: Entry) -> str:
    """Id of a test: `template-qwen3`, or `template-DISTRIBUTION:qwen3` if two plugins have the
    name."""
    claims = [other for other in registry.entries(entry.kind) if other.name == entry.name]
    return f"{entry.kind}-{entry.name if len(claims) == 1 else entry.qualified}"


def package_of(entry: Entry) -> str:
    """Package with a plugin's data files."""
    return entry.value.partition(":")[0].partition(".")[0]


def twins(entry: Entry) -> list[str | None]:
    """Tiny twins of a family: the names in the tiny.toml of its package; without one, None for its
    only twin.

    The package is found, not imported: tests are collected by metadata.
    """
    spec = find_spec(package_of(entry))
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder, "tiny.toml")).is_file():
            return [
                twin["name"] for twin in tomllib.loads(path.read_text(encoding="utf-8"))["twin"]
            ]
    return [None]


def example_options(plugin: type[Plugin], **options: Any) -> Any:
    """The plugin's default Options. A required one takes the first of its `examples`; options that
    depend on each other take the first of the examples in the JSON schema."""
    together: Any = plugin.Options.model_config.get("json_schema_extra") or {}
    if not options:
        options = dict(together.get("examples", [{}])[0])
    for name, field in plugin.Options.model_fields.items():
        if field.is_required() and name not in options:
            assert field.examples, (
                f"option {name!r} is required: give it Field(examples=[…]) so that it can be tested"
            )
            options[name] = field.examples[0]
    return plugin.Options(**options)


def build(entry: Entry, **options: Any) -> Plugin:
    """Import the plugin and create an instance, with default options except for `options`."""
    plugin: type[Plugin] = registry.load(entry)
    return plugin(example_options(plugin, **options), entry.name)
