"""A hub for pages that train a real model: what they name is a tiny twin here; and the site."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from docs.pages import DOCS
from tunewright.check import resolve
from tunewright.run import Run

MODEL, COMMIT = "Qwen/Qwen3-0.6B", "0" * 40


@pytest.fixture(scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache as huggingface_hub has it, with one model."""
    cache = tmp_path_factory.mktemp("hub")
    repository = cache / f"models--{MODEL.replace('/', '--')}"
    recipe = resolve(
        {
            "model": "tiny",
            "family": "qwen",
            "data": [{"path": "none"}],
            "stage": "sft",
            "output": "none",
        }
    )
    loaded = Run(recipe).load()
    for part in (loaded.model, loaded.tokenizer):
        part.save_pretrained(repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(COMMIT)
    return cache


@pytest.fixture
def small_hub(_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, and a cache in which the model of the tutorial is a tiny twin."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(_cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(_cache))  # of commands in processes of their own
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation as a site, built strictly: a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]  # with --quiet none is seen
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [*command, "--site-dir", str(folder)],
        cwd=DOCS.parent,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder
