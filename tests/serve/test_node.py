"""The list of node_client.mjs, with the real `openai` package of npm."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from serve.serving import TOKEN, scripted
from tunewright.inference import GenerateRequest

SCRIPT = Path(__file__).with_name("node_client.mjs")
PACKAGE = "openai@6"


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder with the package: TUNEWRIGHT_NODE's, or one that is installed now."""
    if given := os.environ.get("TUNEWRIGHT_NODE"):
        return Path(given)
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("needs node and npm")
    command = ["npm", "install", PACKAGE, "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot install {PACKAGE}: {done.stderr.splitlines()[:1]}")
    return tmp_path


def answer(request: GenerateRequest) -> Any:
    last = request.conversation.messages[-1] if request.conversation.messages else None
    if request.guide is not None:
        return '{"a": 1}'
    if last and last.role == "tool":
        return f"It says: {last.content}"
    if last and last.content == "tools":
        return '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
    return ["word "] * 100_000 if request.ignore_eos else "one two three"


@pytest.mark.long
def test_node_client(packages: Path) -> None:
    script = shutil.copy(SCRIPT, packages)
    with scripted(answer, models=("base", "other")) as running:
        done = subprocess.run(
            ["node", script, running.address, TOKEN],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == SCRIPT.read_text().count("  async ")
        running.until_idle()
