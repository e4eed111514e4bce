"""A hub for pages that train a real model: what they name is a tiny twin here."""

from pathlib import Path

import pytest

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
