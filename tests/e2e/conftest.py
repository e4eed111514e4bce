"""What several files of tests ask for."""

from pathlib import Path

import pytest

from e2e.spread_setup import CELLS, PURE, train_all


@pytest.fixture(scope="session")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs on one process, by name of their cell."""
    folder = tmp_path_factory.mktemp("one")
    train_all(folder, 1, [*CELLS, *PURE])
    return folder
