"""Trackers without a network, a home and the caller's settings."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

SET = {  # what the libraries send home by themselves is of no use here
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


@pytest.fixture(autouse=True, scope="session")
def trackio_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Trackio reads its folder from the environment when it is imported."""
    folder = tmp_path_factory.mktemp("trackio")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("WANDB", "MLFLOW", "COMET"))]:
            patch.delenv(name)
        for name, value in SET.items():
            patch.setenv(name, value)
        patch.setenv("TRACKIO_DIR", str(folder))
        yield folder
