"""Shared fixtures."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.sharding_setup import CELLS, OF_FSDP, train_all
from tunewright import cli


@pytest.fixture
def tunewright(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """tunewright(argument, …): exit code, standard output and error of the command, in this
    process."""

    def called(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tunewright", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return (int(ended.value.code or 0), *capfd.readouterr())

    return called


@pytest.fixture(scope="session")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs on one process, by name of their cell."""
    folder = tmp_path_factory.mktemp("one")
    train_all(folder, 1, [*CELLS, *OF_FSDP])
    return folder
