"""The site: searchable, in two languages, with versions side by side."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from docs.pages import DOCS

ROOT = DOCS.parent


def mike(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    beside = Path(sys.executable).parent  # mike calls mkdocs
    env = {
        **os.environ,
        "PATH": f"{beside}{os.pathsep}{os.environ['PATH']}",
        "NO_MKDOCS_2_WARNING": "1",
        **{
            f"GIT_{who}_{what}": "a@b"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
    }
    command = [beside / "mike", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


@pytest.mark.long
@pytest.mark.slow
def test_versions_stand_side_by_side(tmp_path: Path) -> None:
    """mike, in a clone: two versions, of which the last is `latest`."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    for version in ("0.1", "0.2"):
        done = mike("deploy", "--update-aliases", version, "latest", cwd=clone)
        assert done.returncode == 0, done.stdout + done.stderr
    show = ["git", "show", "gh-pages:versions.json"]
    found = json.loads(subprocess.run(show, cwd=clone, capture_output=True, check=True).stdout)
    assert [(each["version"], each["aliases"]) for each in found] == [
        ("0.2", ["latest"]),
        ("0.1", []),
    ]


@pytest.mark.slow
def test_the_search_finds_both_languages(site: Path) -> None:
    index = json.loads((site / "search/search_index.json").read_text("utf-8"))
    texts = {page["location"]: page["text"] for page in index["docs"]}
    assert "zh" in index["config"]["lang"]
    assert any("Wren" in text for text in texts.values())
    assert any("配方" in text for place, text in texts.items() if place.startswith("zh/"))


@pytest.mark.slow
def test_a_page_leads_to_the_other_language(site: Path) -> None:
    english = (site / "tutorial/first-fine-tune/index.html").read_text("utf-8")
    chinese = (site / "zh/tutorial/first-fine-tune/index.html").read_text("utf-8")
    assert '<html lang="en"' in english
    assert '<html lang="zh"' in chinese
    assert "zh/tutorial/first-fine-tune/" in english
    assert "第一次微调" in chinese
    assert "教程" in chinese
