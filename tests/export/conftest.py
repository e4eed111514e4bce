"""Runs that are exported."""

from pathlib import Path

import pytest

from export.exporting import export, loud, train


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that trained all weights."""
    return train(tmp_path_factory.mktemp("full"), "tiny", "full")


@pytest.fixture(scope="session")
def lora(full: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an adapter on the other's result, made loud."""
    run = train(tmp_path_factory.mktemp("lora"), str(full / "model"), {"name": "lora", "rank": 4})
    loud(run / "model", seed=0)
    return run


@pytest.fixture(scope="session")
def merged(lora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The loud adapter's run as a plain checkpoint."""
    to = tmp_path_factory.mktemp("merged") / "to"
    export(lora, "--to", "safetensors", "--output", to)
    return to
