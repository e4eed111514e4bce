"""The budgets of DESIGN: a kernel that can be read, files and functions that fit into a head."""

import ast
from pathlib import Path

import pytest

from workspace.members import ROOT, members

OURS = [member.source for member in members()] + [ROOT / "tests", ROOT / "scripts"]
FILES = sorted({file for folder in OURS for file in folder.rglob("*.py")})
every_file = pytest.mark.parametrize(
    "file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix()
)


def code_lines(file: Path) -> int:
    """Lines that are not blank, a comment or a docstring: the contract may be explained at
    length."""
    text = file.read_text("utf-8")
    code = {
        n
        for n, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.strip().startswith("#")
    }
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            code -= set(range(node.lineno, node.end_lineno + 1))
    return len(code)


def test_what_a_newcomer_reads_is_small() -> None:
    """hookspecs, run and registry, and types and context below them: the system in one sitting."""
    read = ("hookspecs.py", "run.py", "registry.py", "types.py", "context.py")
    files = {name: code_lines(members()[0].source / name) for name in read}
    assert sum(files.values()) <= 1000, files


@every_file
def test_file_and_functions_are_short(file: Path) -> None:
    text = file.read_text("utf-8")
    assert len(text.splitlines()) <= 300
    functions = (
        n
        for n in ast.walk(ast.parse(text))
        if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert [f.name for f in functions if f.end_lineno - f.lineno + 1 > 60] == []
