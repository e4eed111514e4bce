"""Tests of the READMEs: the commands work, and both languages have the same content, as far as a
program can tell."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from docs.pages import DOCS, SCHEMA
from tunewright.kinds import kinds as all_kinds

ENGLISH, CHINESE = (
    (DOCS.parent / name).read_text("utf-8") for name in ("README.md", "README.zh-CN.md")
)


def fences(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """The commands of all blocks, without what is said of them."""
    return [
        line.partition(" #")[0].rstrip()
        for block in fences(text, "sh")
        for line in block.splitlines()
    ]


def links(text: str) -> list[str]:
    """Targets of links, except headings and the other language. Translated pages count as the
    English ones."""
    found = [link.replace(".zh.md", ".md") for link in re.findall(r"\]\(([^)#]+)\)", text)]
    return sorted(set(found) - {"README.md", "README.zh-CN.md"})


#: pip puts what it installs into a folder of its own, without a network
PIP = {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_TARGET": "site"}
ANSWERS = "Qwen/Qwen3-0.6B\ndata/support.jsonl\nsft\nlora\nnone\nruns/asked\n"


@pytest.mark.slow
@pytest.mark.usefixtures("small_hub")
def test_commands_work(tmp_path: Path) -> None:
    """One after another, but for those of scripts/dev.py, of which tests/e2e and CI are made."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {
        **os.environ,
        **PIP,
        "PATH": path,
        "PYTHONPATH": str(tmp_path / "site"),
        "PYTHONUTF8": "1",
    }
    (tmp_path / "data").mkdir()
    (tmp_path / "data/support.jsonl").write_text(
        '{"instruction": "Say hello.", "output": "Hello."}\n' * 4, "utf-8"
    )
    ran = []
    for command in commands(ENGLISH):
        if "scripts/dev.py" not in command:
            # chat ends where nothing more is said
            asked = ANSWERS if command == "tunewright recipe new" else ""
            done = subprocess.run(
                ["bash", "-ec", command],
                cwd=tmp_path,
                env=env,
                input=asked,
                capture_output=True,
                text=True,
                encoding="utf-8",
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            ran.append(command)
        if command == "tunewright recipe new":
            assert (
                yaml.safe_load((tmp_path / "recipe.yaml").read_text("utf-8"))["output"]
                == "runs/asked"
            )
            (tmp_path / "recipe.yaml").write_text(fences(ENGLISH, "yaml")[0], "utf-8")
    assert len(ran) >= 9
    assert (tmp_path / "runs/support/model/adapter_model.safetensors").is_file()


def test_commands_are_the_same() -> None:
    assert commands(ENGLISH) == commands(CHINESE)
    assert "tunewright train recipe.yaml --smoke" in commands(CHINESE)


def test_recipes_are_the_same() -> None:
    english, chinese = (
        list(map(yaml.safe_load, fences(text, "yaml"))) for text in (ENGLISH, CHINESE)
    )
    assert english == chinese
    assert len(chinese) == 1
    assert all(
        text.startswith(SCHEMA) for page in (ENGLISH, CHINESE) for text in fences(page, "yaml")
    )


def test_links_and_sections_are_the_same() -> None:
    assert links(ENGLISH) == links(CHINESE)
    assert len(re.findall(r"^## ", ENGLISH, re.MULTILINE)) == len(
        re.findall(r"^## ", CHINESE, re.MULTILINE)
    )


def test_kinds_and_hooks_are_the_same() -> None:
    english, chinese = (kinds(text) for text in (ENGLISH, CHINESE))
    assert english == chinese
    assert len(english) == len(all_kinds())


def kinds(text: str) -> list[tuple[str, list[str]]]:
    """Each kind of the table, with its hooks."""
    rows = re.findall(r"^\| ([a-z]+)(?:（.*?）)? \| ([^|]+) \|", text, re.MULTILINE)
    return [(kind, re.findall(r"\w+", hooks)) for kind, hooks in rows if kind != "kind"]
