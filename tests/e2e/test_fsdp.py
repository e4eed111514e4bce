"""Accelerator fsdp on two processes: the losses, the results and the resumed run of one process."""

from pathlib import Path

import pytest

from e2e.spread_setup import check_equal, check_refused_alone, check_resumed, train_all

CELLS = ["full", "lora"]


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fsdp")
    train_all(folder, 2, CELLS, "accelerators=[fsdp]")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_two_processes_are_one(one_process: Path, two_processes: Path, cell: str) -> None:
    check_equal(one_process / cell, two_processes / f"{cell}-whole")


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_resumed_is_uninterrupted(two_processes: Path, cell: str) -> None:
    check_resumed(two_processes / cell)


def test_one_process_is_refused(tmp_path: Path) -> None:
    check_refused_alone(tmp_path, "fsdp")
