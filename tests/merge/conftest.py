"""Models that are merged: a run, two that were trained on from it, and an adapter."""

from pathlib import Path
from typing import Any

import pytest

from merge.merging import loud, train


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that trained all weights, from which the others go on."""
    return train(tmp_path_factory.mktemp("base"), "tiny")


@pytest.fixture(scope="session")
def tuned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs from the base, with evaluations and checkpoints at each of four steps."""

    def one(seed: int) -> Path:
        more: dict[str, Any] = {"seed": seed, "save_steps": 1, "eval_steps": 1, "max_steps": 4}
        more |= {"save_total_limit": 4}
        return train(tmp_path_factory.mktemp(f"tuned{seed}"), str(base / "model"), **more)

    return [one(1), one(2)]


@pytest.fixture(scope="session")
def lora(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an adapter on the base, made loud."""
    adapter = {"name": "lora", "rank": 4}
    run = train(tmp_path_factory.mktemp("lora"), str(base / "model"), adapter=adapter)
    loud(run / "model")
    return run
