"""The budgets of DESIGN: a kernel that can be read, files and functions that fit into a head."""

import ast
from pathlib import Path

import pytest

from workspace.members import ROOT, members

FILES = [file for member in members() for file in sorted(member.source.rglob("*.py"))]
every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())


def test_kernel_is_small() -> None:
    kernel = members()[0].source
    assert sum(len(file.read_text("utf-8").splitlines()) for file in kernel.rglob("*.py")) <= 1500


@every_file
def test_file_and_functions_are_short(file: Path) -> None:
    text = file.read_text("utf-8")
    assert len(text.splitlines()) <= 300
    functions = (
        n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert [f.name for f in functions if f.end_lineno - f.lineno + 1 > 60] == []
