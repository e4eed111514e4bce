"""Packages outside tunewright-hf use only its public names: those in a module's __all__."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
HF = ROOT / "plugins/hf/src/tunewright_hf"


class Use(NamedTuple):
    """A name of a module of tunewright_hf, and the file and line that use it."""

    module: str
    name: str
    place: str


def public() -> dict[str, list[str]]:
    """Module → its __all__. A module without one is private."""
    found = {}
    for path in HF.rglob("*.py"):
        module = ".".join(("tunewright_hf", *path.relative_to(HF).with_suffix("").parts))
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                found[module.removesuffix(".__init__")] = ast.literal_eval(node.value)
    return found


def is_module(name: str) -> bool:
    path = ROOT / "plugins/hf/src" / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def uses(source: str, place: str) -> Iterator[Use]:
    """Names that a file uses from tunewright_hf: imported names, and attributes of modules."""
    tree = ast.parse(source)
    modules: dict[str, str] = {}  # the name here → the module
    for node in ast.walk(tree):
        at = f"{place}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == HF.name:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if is_module(whole):
                    modules[alias.asname or alias.name] = whole
                else:
                    yield Use(str(node.module), alias.name, at)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == HF.name:
                    modules[alias.asname or alias.name] = alias.name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (module := modules.get(ast.unparse(node.value))):
            yield Use(module, node.attr, f"{place}:{node.lineno}")


def files() -> list[Path]:
    """Every source outside tunewright-hf that stands where a third party's does."""
    found = [
        *(ROOT / "plugins").rglob("*.py"),
        *(ROOT / "plugins").rglob("*.py.txt"),  # scaffolds
        *(ROOT / "contrib").rglob("*.py"),
        *(ROOT / "tests/conformance").rglob("*.py"),
    ]
    return [path for path in found if HF not in path.parents]


def text(path: Path) -> str:
    """A file's source; a scaffold's with its placeholders as names."""
    return re.sub(r"\$\{?(\w+)\}?", r"\1", path.read_text("utf-8"))


def not_public(found: list[Use], allowed: dict[str, list[str]]) -> list[str]:
    return [
        f"{use.place} uses {use.module}.{use.name}"
        for use in found
        if use.name not in allowed.get(use.module, ())
    ]


def test_only_public_names_are_used() -> None:
    found = [use for path in files() for use in uses(text(path), str(path.relative_to(ROOT)))]
    assert len({use.place.partition(":")[0] for use in found}) > 50  # it looks at them
    assert not_public(found, public()) == []


@pytest.mark.parametrize(
    "source",
    [
        "from tunewright_hf.models.hub import _snapshot",
        "from tunewright_hf.models import hub\nhub._snapshot('a')",
        "import tunewright_hf.models.hub\ntunewright_hf.models.hub._snapshot('a')",
        "def f():\n    from tunewright_hf.models import hub as h\n    return h._snapshot",
        "from tunewright_hf.templates.markers import TRAINED",  # a private module
    ],
)
def test_it_would_be_noticed(source: str) -> None:
    assert len(not_public(list(uses(source, "here.py")), public())) == 1


def test_scaffolds_are_looked_at() -> None:
    assert [path for path in files() if path.name == "__init__.py.txt"]
