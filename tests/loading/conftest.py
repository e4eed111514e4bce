"""Makes `loading_setup` importable, keeps torch to one thread, and gives each test a run that
collects events."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from loading_setup import load, save

from tunewright_conformance.doubles import FakeRun


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def run() -> FakeRun:
    return FakeRun()


@pytest.fixture
def checkpoint(run: FakeRun, tmp_path: Path) -> Path:
    return save(load(run), tmp_path / "checkpoint")


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "it_ran"


@pytest.fixture
def modules_of_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package into which transformers copies code that comes with a checkpoint: new, and gone
    afterwards."""

    def forget() -> None:
        for name in [
            name for name in sys.modules if name.partition(".")[0] == "transformers_modules"
        ]:
            del sys.modules[name]

    monkeypatch.setattr(
        "transformers.dynamic_module_utils.HF_MODULES_CACHE",
        str(tmp_path.parent / f"{tmp_path.name}-modules"),
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    forget()
    yield
    forget()
