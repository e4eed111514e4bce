"""Makes `loading_setup` importable, keeps torch to one thread, and gives each test a run that collects events."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from loading_setup import Listener, load, save


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def run() -> Listener:
    return Listener()


@pytest.fixture
def checkpoint(run: Listener, tmp_path: Path) -> Path:
    return save(load(run), tmp_path / "checkpoint")


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "it_ran"
