"""Ranks of one host compute batches once, and get those that each would compute."""

import os
from pathlib import Path

import numpy as np
import pytest

from tunewright.recipe import Training
from tunewright_hf.batching import host_arrays
from tunewright_hf.batching.batch_sampler import Batches
from tunewright_hf.batching.host_arrays import HostArrays

LENGTHS = np.random.default_rng(0).integers(1, 64, 500).astype(np.int32)
WAYS = {
    "random": {},
    "length_grouped": {"batching": "length_grouped"},
    "token_budget": {"batching": "token_budget"},
    "packing": {"batching": "token_budget", "max_length": 64},
}


def batches(way: str, rank: int, shared: HostArrays | None) -> Batches:
    training = Training(epochs=3, **{"batching": "random", **WAYS[way]})
    packing = way == "packing"
    return Batches(LENGTHS, training, packing=packing, rank=rank, world_size=2, shared=shared)


@pytest.mark.parametrize("way", WAYS)
def test_they_are_those_of_each_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    expected = [list(batches(way, rank, None)) for rank in (0, 1)]
    made, make = [], Batches._made
    monkeypatch.setattr(
        Batches, "_made", lambda self, epoch: made.append(epoch) or make(self, epoch)
    )
    shared = HostArrays(tmp_path / "batches", "data")
    assert [list(batches(way, rank, shared)) for rank in (0, 1)] == expected
    assert sorted(set(made)) == sorted(made) == [0, 1, 2]  # once each, for both ranks
    assert list(batches(way, 0, HostArrays(tmp_path / "batches", "other data"))) == expected[0]
    assert len(made) > 3


def test_they_are_mapped(tmp_path: Path) -> None:
    units = batches("packing", 0, HostArrays(tmp_path, "data")).units(0)
    assert all(isinstance(each, np.memmap) for each in (units.rows, units.ends, units.order))


def test_other_facts_are_other_arrays(tmp_path: Path) -> None:
    shared = HostArrays(tmp_path, "data")
    for number in (1, 2):
        found = shared.arrays(number, lambda number=number: {"a": np.full(3, number)})
        assert found["a"].tolist() == [number] * 3


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = HostArrays(tmp_path / "file", "data").arrays("x", lambda: {"a": np.arange(3)})
    assert found["a"].tolist() == [0, 1, 2]


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / "old", (0, 0))
    HostArrays(tmp_path, "data").arrays("x", lambda: {"a": np.arange(3)})
    assert (tmp_path / "new").exists() and not (tmp_path / "old").exists()


@pytest.mark.parametrize(
    ("ranks", "rows", "found"), [("2", 10, True), ("1", 10, False), ("2", 9, False)]
)
def test_a_rank_that_is_alone_and_few_rows_need_none(
    monkeypatch: pytest.MonkeyPatch, ranks: str, rows: int, found: bool
) -> None:
    monkeypatch.setattr(host_arrays, "MANY", 10)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    assert bool(host_arrays.host_arrays("data", rows)) == found
