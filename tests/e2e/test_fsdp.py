"""Accelerator fsdp on two processes: the losses, the results and the resumed run of one process."""

from pathlib import Path

import pytest

from e2e.sharding_setup import (
    OF_FSDP,
    check_equal,
    check_near,
    check_refused_alone,
    check_resumed,
    train_all,
)

CELLS = ["full", "lora"]
EQUAL = [*CELLS, "qlora"]


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fsdp")
    train_all(folder, 2, [*CELLS, *OF_FSDP], "accelerators=[fsdp]")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("cell", EQUAL)
def test_two_processes_are_one(one_process: Path, two_processes: Path, cell: str) -> None:
    check_equal(one_process / cell, two_processes / f"{cell}-whole")


@pytest.mark.slow
def test_pure_bf16_is_near_to_one_process(one_process: Path, two_processes: Path) -> None:
    check_near(one_process / "pure", two_processes / "pure-whole", "loss", rel=2e-2)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["half", "half-lora"])
def test_fp32_copies_of_bf16_weights(one_process: Path, two_processes: Path, cell: str) -> None:
    check_near(one_process / cell, two_processes / f"{cell}-whole", "loss", rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("cell", [*CELLS, *OF_FSDP])
def test_resumed_is_uninterrupted(two_processes: Path, cell: str) -> None:
    check_resumed(two_processes / cell)


def test_one_process_is_refused(tmp_path: Path) -> None:
    check_refused_alone(tmp_path, "fsdp")
