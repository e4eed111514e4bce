"""WRITING.md, as far as a program can tell: first lines of docstrings, and option descriptions."""

import ast
import re
from pathlib import Path

import pytest

from tunewright import registry
from tunewright.descriptions import described
from tunewright.kinds import kinds
from workspace.members import ROOT, members

FILES = [file for member in members() for file in sorted(member.source.rglob("*.py"))]
FILES += sorted((ROOT / "scripts").glob("*.py")) + sorted((ROOT / "contrib").rglob("src/**/*.py"))
every_file = pytest.mark.parametrize(
    "file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix()
)
#: first words of a docstring that circumscribes a thing in place of naming it
CIRCUMSCRIBES = re.compile(r"(What|Where|Which|Who|Whose|When|How|That which|Those)\b")
OPTIONS = [
    pytest.param(entry, id=f"{kind}-{entry.name}")
    for kind in kinds()
    if kind != "command"
    for entry in registry.entries(kind)
    if entry.distribution in {member.project["name"] for member in members()}
]


def problems(text: str) -> list[str]:
    """First lines of docstrings that name nothing. `Whether` is for functions that return bool."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first = (ast.get_docstring(node) or "").partition("\n")[0]
        returns = ast.unparse(node.returns) if getattr(node, "returns", None) else ""
        if CIRCUMSCRIBES.match(first) or (first.startswith("Whether ") and returns != "bool"):
            found.append(f"{getattr(node, 'name', 'module')}: {first}")
    return found


@every_file
def test_docstrings_say_what_a_thing_does_or_returns(file: Path) -> None:
    assert problems(file.read_text("utf-8")) == []


def test_the_check_finds_circumscriptions() -> None:
    bad = '"""What is read."""\ndef f() -> int:\n    """Whether so."""\nclass C:\n    """How."""'
    assert [each.partition(":")[0] for each in problems(bad)] == ["module", "f", "C"]
    good = '"""Reader."""\ndef f() -> bool:\n    """Whether so."""\ndef g():\n    """Whatever."""'
    assert problems(good) == []


@pytest.mark.parametrize("entry", OPTIONS)
def test_options_are_described_plainly(entry: registry.Entry) -> None:
    """A default is called "Default: …"; no description begins with a circumscription."""
    plugin = registry.load(entry)
    models = [plugin.Options] + ([plugin.Entry] if entry.kind == "dataset" else [])
    texts = [f"{name}: {text}" for model in models for name, text in described(model).items()]
    odd = re.compile(r"\w+: (What|Where|Who) |(?i:\bnothing: |\bnot given: |\bnot said: )")
    assert [text for text in texts if odd.search(text)] == []
