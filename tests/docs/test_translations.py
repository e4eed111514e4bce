"""Chinese pages say what the English ones say, as far as a program can tell."""

import re
from pathlib import Path

import pytest

from docs.pages import BLOCK, DOCS

CHINESE = sorted(DOCS.rglob("*.zh.md"))
FIRST = ["tutorial/first-fine-tune", "tutorial/first-plugin", "how-to/own-data", "how-to/resume"]
every_page = pytest.mark.parametrize(
    "page", CHINESE, ids=lambda page: page.relative_to(DOCS).as_posix()
)


def english(page: Path) -> Path:
    return page.with_name(page.name.replace(".zh.md", ".md"))


def targets(page: Path) -> list[str]:
    """Links of a page, outside its blocks, sorted: the order of words differs."""
    return sorted(re.findall(r"\]\(([^)]+)\)", BLOCK.sub("", page.read_text("utf-8"))))


@every_page
def test_blocks_are_the_same(page: Path) -> None:
    """`make fix` copies changed blocks; where one came or went, the text has to be translated."""
    found = [match[0] for match in BLOCK.finditer(page.read_text("utf-8"))]
    assert found == [match[0] for match in BLOCK.finditer(english(page).read_text("utf-8"))]


@every_page
def test_headings_tables_and_links_are_the_same(page: Path) -> None:
    texts = [BLOCK.sub("", file.read_text("utf-8")) for file in (page, english(page))]
    for mark in (r"^#+ ", r"^\|"):
        ours, theirs = (len(re.findall(mark, text, re.MULTILINE)) for text in texts)
        assert ours == theirs
    assert targets(page) == targets(english(page))


@every_page
def test_the_page_is_in_chinese(page: Path) -> None:
    text = BLOCK.sub("", page.read_text("utf-8"))
    assert len(re.findall(r"[\u4e00-\u9fff]", text)) > 100


def test_the_first_pages_are_there() -> None:
    assert {DOCS / f"{name}.zh.md" for name in FIRST} <= set(CHINESE)
