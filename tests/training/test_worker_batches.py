"""Batches of data-loader workers: what the collator made, also after their memory is used again."""

import time
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from tunewright import RowError
from tunewright_hf.training.worker_batches import PREFETCH, Guarded, received

LARGE = 20_000  # numbers: more than 64 KiB in each of the types below


def batch(rows: Sequence[int]) -> dict[str, Any]:
    """Tensors of several types, small and large, whose size changes from batch to batch."""
    (row,) = rows
    if row == 13:
        raise RowError("is damaged", place="row 13")
    size = LARGE + 1000 * (row % 4)
    return {
        "inputs": {
            "input_ids": torch.full((1, 3), row),
            "pixel_values": torch.full((2, size), row + 0.5),
            "half": torch.full((size, 2), row, dtype=torch.bfloat16),
            "small_half": torch.full((2,), row, dtype=torch.bfloat16),
            "strided": torch.arange(4 * size).view(2, -1).T + row,
        },
        "labels": torch.full((1, size), row),
        "unreadable": [f"row {row}"],
    }


def assert_equal(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, each in expected.items():
            assert_equal(found[name], each)
    elif isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype and torch.equal(found, expected)
        assert not found.is_shared()
    else:
        assert found == expected


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("pause", [0.0, 0.05], ids=["idle consumer", "slow consumer"])
def test_batches_stay_what_they_were(workers: int, pause: float) -> None:
    """All are kept to the end, while their workers have made many more."""
    facts: dict[str, Any] = {"prefetch_factor": PREFETCH} if workers else {}
    loader = DataLoader(range(13), collate_fn=Guarded(batch), num_workers=workers, **facts)
    kept = []
    for each in loader:
        if pause:
            time.sleep(pause)  # the workers are as far ahead as they may be
        kept.append(received(each))
    assert len(kept) == 13
    for row, each in enumerate(kept):
        assert_equal(each, batch([row]))


def test_errors_are_values() -> None:
    """A worker would wrap them in a traceback."""
    loader = DataLoader(range(12, 15), collate_fn=Guarded(batch), num_workers=1)
    first, error, last = (received(each) for each in loader)
    assert (error.problem, error.place) == ("is damaged", "row 13")
    assert_equal(first, batch([12]))
    assert_equal(last, batch([14]))


def test_memory_is_used_again() -> None:
    """A worker has one more set of buffers than batches ahead; each grows to the largest batch."""
    guarded = Guarded(batch)
    places = []
    for row in range(12):
        guarded.buffers.next_batch()
        places.append(guarded.buffers.copy(batch([row])["labels"]).data_ptr())
    assert len(set(places[-(PREFETCH + 1) :])) == PREFETCH + 1
    assert len(set(places)) < 12
    sizes = {set_[0].nbytes for set_ in guarded.buffers._sets}
    assert max(sizes) == 8 * (LARGE + 3000)
