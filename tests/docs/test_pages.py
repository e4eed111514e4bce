"""Tests of the documentation: its commands run, its recipes are valid, its links exist."""

import re
from pathlib import Path

import pytest

from docs.pages import BLOCK, DOCS, FENCE, FILES, INLINE, PAGES, REASONS, RUN, blocks, parse, run

ROOT = DOCS.parent


def name(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=name)
@pytest.mark.usefixtures("small_hub")
def test_what_the_page_says_works(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From top to bottom, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for block in blocks(page):
        if not block.reason:
            run(block)


NOT_RUN = [
    pytest.param(b, id=f"{name(page)}:{b.line}") for page in PAGES for b in blocks(page) if b.reason
]


@pytest.mark.parametrize("block", NOT_RUN)
def test_what_is_not_run_says_why(block) -> None:
    assert block.reason in REASONS
    for command in re.findall(r"^\$ tunewright (.+)$", block.text, re.MULTILINE):
        parse(command)
    pytest.skip(block.reason)  # so that every run of the tests lists it


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_is_of_a_language_that_is_run_or_is_a_file(page: Path) -> None:
    found = blocks(page)
    assert len(found) * 2 == len(FENCE.findall(page.read_text("utf-8"))), "a fence is no block"
    for block in found:
        assert block.language in FILES, f"line {block.line}"
        assert block.title or block.language in RUN or block.language == "text", (
            f"line {block.line}"
        )


TEXTS = [*sorted(DOCS.rglob("*.md")), *ROOT.glob("*.md"), *sorted((ROOT / "contrib").rglob("*.md"))]
TEXTS.append(ROOT / "tests/conformance/README.md")


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_in_the_text_are_ones_that_there_are(page: Path) -> None:
    """Such as `tunewright train RECIPE --resume`; `tunewright train` alone is the verb's name."""
    for command in INLINE.findall(BLOCK.sub("", page.read_text("utf-8"))):
        parse(command.partition(">")[0], in_text=True)


@pytest.mark.parametrize("page", [*PAGES, DOCS / "README.md"], ids=name)
def test_no_page_is_unfinished(page: Path) -> None:
    text = page.read_text("utf-8")
    assert not re.search(r"\b(TODO|FIXME|TBD|XXX|to do later|coming soon)\b", text, re.IGNORECASE)
    assert text.startswith("# ")


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(site: Path) -> None:
    """Every page stands in the navigation, and every link leads to a page, a file or a heading."""
    assert (site / "tutorial/first-fine-tune/index.html").is_file()
