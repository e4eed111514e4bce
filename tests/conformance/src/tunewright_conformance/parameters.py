"""The options that are tried, and their tolerances: conformance.toml in its package.

    [[bitsandbytes]]                # name of the plugin
    options = [{bits = 4}]          # the tests run once for each
    tolerance = 1e-5                # attributes of the kind's test class

Several tables of one name are tried one after the other. A table ["exporter:bitsandbytes"] is for
the plugin of that kind alone, where a package has several of one name. The file is read without
importing the plugin. Without it, and for keys that it leaves out, the attributes of the test class
hold.
"""

import tomllib
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tunewright.registry import Entry
from tunewright_conformance.subjects import package_of

if TYPE_CHECKING:
    from tunewright_conformance.suite import Suite

FILE = "conformance.toml"


@dataclass(frozen=True)
class Parameters:
    """One set of options, and the attributes of the test class that go with it."""

    options: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Part of a test's id; empty for the defaults."""
        return ",".join(f"{key}={value}" for key, value in self.options.items())


def parameters(entry: Entry, suite: "type[Suite]") -> list[Parameters]:
    """Options tried of a plugin. Raises UsageError if its conformance.toml is wrong."""
    tables = [] if suite.plugin else _tables(entry)
    found = []
    for table in tables or [{}]:
        attributes = dict(table)
        for options in attributes.pop("options", suite.options):
            found.append(Parameters(dict(options), attributes))
    return found


def _tables(entry: Entry) -> list[dict[str, Any]]:
    from tunewright_conformance.plugin import suites_of

    spec = find_spec(package_of(entry))
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, FILE)
        if path.is_file():
            return _checked(
                path, entry, {key for each in suites_of(entry.kind) for key in dir(each)}
            )
    return []


def _checked(path: Path, entry: Entry, known: set[str]) -> list[dict[str, Any]]:
    try:
        read = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise pytest.UsageError(f"{path}: {error}") from error
    tables = read.get(f"{entry.kind}:{entry.name}", read.get(entry.name, []))
    if not isinstance(tables, list):
        raise pytest.UsageError(f"{path}: {entry.name}: write [[{entry.name}]]")
    for key in [key for table in tables for key in table if key not in known]:
        problem = f"{path}: {entry.name}: the tests of kind {entry.kind} have no {key!r}"
        raise pytest.UsageError(problem)
    return tables
