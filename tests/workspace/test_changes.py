"""Change fragments: one short text per file, of a known kind."""

import re

import pytest

from workspace.members import ROOT

FOLDER = ROOT / "changes"
KINDS = re.findall(r"^\| (\w+) \|", (FOLDER / "README.md").read_text("utf-8"), re.MULTILINE)[1:]


@pytest.mark.parametrize(
    "file", sorted(set(FOLDER.iterdir()) - {FOLDER / "README.md"}), ids=lambda file: file.name
)
def test_a_change_is_reported_in_a_sentence_or_two(file) -> None:
    name = re.fullmatch(r"[a-z0-9-]+\.(\w+)\.md", file.name)
    assert name, "expected WHAT.KIND.md"
    assert name[1] in KINDS
    text = file.read_text("utf-8")
    assert re.fullmatch(r"\S[^\n]*\.\n", text), "expected one line that ends with a full stop"
    assert len(text) <= 400
