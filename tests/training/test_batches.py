"""Rows of each batch."""

from collections import Counter
from itertools import chain, islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright import RecipeError, RunError
from tunewright.recipe import Training
from tunewright_hf.batching.batch_sampler import Batches, row_lengths
from tunewright_hf.batching.units import packed

LENGTHS = [3, 9, 4, 4, 7, 12, 5, 3, 8, 10, 6, 11, 2]
MODES = {
    "random": {},
    "length_grouped": {"batching": "length_grouped"},
    "token_budget": {"batching": "token_budget", "tokens_per_batch": 24},
    "a budget of its own": {"batching": "token_budget"},
    "packing": {"packing": True, "max_length": 16},
    "packing to a budget": {"packing": True, "batching": "token_budget", "tokens_per_batch": 24},
}


def batches(lengths=LENGTHS, *, rank=0, world_size=1, packing=False, **training):
    settings = {"per_device_train_batch_size": 2, "seed": 7, "batching": "random", **training}
    return Batches(lengths, Training(**settings), packing=packing, rank=rank, world_size=world_size)


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_an_epoch_has_every_row_once_in_an_order_of_its_own(mode):
    two = batches(**mode, epochs=2)
    rows = list(chain(*two))
    assert Counter(rows) == dict.fromkeys(range(len(LENGTHS)), 2)
    assert rows[: len(LENGTHS)] != rows[len(LENGTHS) :]
    assert list(two) == list(batches(**mode, epochs=2)) != list(batches(**mode, epochs=2, seed=8))
    assert len(list(two)) == len(two)


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_processes_get_equal_numbers_of_disjoint_batches(mode, world_size):
    ranks = [batches(**mode, rank=rank, world_size=world_size) for rank in range(world_size)]
    lists = [list(each) for each in ranks]
    assert {len(each) for each in lists} == {len(ranks[0])}
    rows = Counter(chain(*chain(*lists)))
    assert max(rows.values()) == 1
    assert all(batch for each in lists for batch in each)
    if "packing" not in mode and "batching" not in mode:
        assert len(rows) == len(LENGTHS) - ranks[0].left_over


@pytest.mark.parametrize("mode", ["random", "length_grouped", "packing"])
def test_a_step_has_the_same_rows_however_they_are_spread(mode):
    def steps(**how):
        ranks = [
            batches(**MODES[mode], epochs=4, rank=rank, **how)
            for rank in range(how.get("world_size", 1))
        ]
        passes = [sorted(chain(*together)) for together in zip(*ranks, strict=True)]
        per_step = how.get("gradient_accumulation_steps", 1)
        return [
            sorted(chain(*passes[at : at + per_step])) for at in range(0, len(passes), per_step)
        ]

    one = steps(per_device_train_batch_size=4)
    assert one == steps(per_device_train_batch_size=1, gradient_accumulation_steps=4)
    assert one == steps(per_device_train_batch_size=2, world_size=2)
    assert one == steps(per_device_train_batch_size=1, world_size=2, gradient_accumulation_steps=2)


def test_epochs_and_steps():
    assert batches(epochs=1).steps == 7  # 13 rows
    assert batches(epochs=3).steps == 20  # 39 rows: what is over is carried into the next epoch
    assert batches(epochs=0.5).steps == 3
    assert batches(max_steps=50).steps == 50
    assert len(batches(max_steps=5, gradient_accumulation_steps=3)) == 15
    assert batches(epochs=2).epoch_at(0) == 0
    assert batches(epochs=2).epoch_at(13) == 2
    assert batches(epochs=2).epoch_at(5) == pytest.approx(10 / 13)
    budget = batches(**MODES["token_budget"], max_steps=40)
    assert [budget.epoch_at(step) for step in range(41)] == sorted(
        {budget.epoch_at(step) for step in range(41)}
    )


def test_length_grouped_batches_hold_rows_of_like_length():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 1000, 400).tolist()

    def padding(mode):
        return sum(
            max(lengths[row] for row in batch) * len(batch) for batch in batches(lengths, **mode)
        )

    assert padding(MODES["length_grouped"]) < sum(lengths) * 1.02 < padding({})


def test_token_budget_is_kept_with_padding():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 100, 400).tolist()
    made = list(batches(lengths, batching="token_budget", tokens_per_batch=300))
    sizes = [max(lengths[row] for row in batch) * len(batch) for batch in made]
    assert max(sizes) <= 300
    assert sum(lengths) / (300 * len(made)) > 0.8


@pytest.mark.parametrize("per_device", [1, 2, 8, 32])
@pytest.mark.parametrize("spread", [0.0, 0.4, 0.8])
def test_without_a_budget_steps_are_as_expected_and_padding_is_little(spread, per_device):
    lengths = np.clip(np.random.default_rng(0).lognormal(5, spread, 6000), 5, 2048).astype(int)
    made = Batches(lengths, Training(per_device_train_batch_size=per_device, max_length=2048))
    sizes = [lengths[batch].max() * len(batch) for batch in made]
    assert lengths.sum() / sum(sizes) > 0.95
    assert made.steps == pytest.approx(6000 / per_device, rel=0.06)
    assert max(sizes) <= per_device * lengths.max()  # never more than rows in random order may need


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(1, 32))
def test_packs_hold_every_row_once_and_no_more_than_fits(lengths, capacity):
    lengths = np.array(lengths)
    packs = packed(np.arange(len(lengths)), lengths, capacity)
    assert sorted(chain(*packs)) == list(range(len(lengths)))
    assert all(len(each) == 1 or lengths[each].sum() <= capacity for each in packs)
    # best fit: no two packs could have been one
    loads = sorted(int(lengths[each].sum()) for each in packs)
    assert len(loads) < 2 or loads[0] + loads[1] > capacity


def test_one_row_of_data_reaches_no_two_processes():
    with pytest.raises(RunError, match="too few for 2 processes"):
        batches([5], world_size=2)
    assert batches([5, 6, 7], per_device_train_batch_size=1, world_size=2).left_over == 1


def test_what_does_not_fit_is_reported():
    with pytest.raises(RunError, match="no rows to train on"):
        batches([])
    with pytest.raises(RecipeError, match="the longest row has 12 tokens"):
        batches(batching="token_budget", tokens_per_batch=8)
    with pytest.raises(RecipeError, match="packing fills its rows itself"):
        batches(batching="length_grouped", packing=True)


def test_row_lengths_follow_the_order_of_the_dataset():
    import datasets

    rows = datasets.Dataset.from_list([{"input_ids": [1] * length} for length in LENGTHS])
    assert row_lengths(rows).tolist() == LENGTHS
    assert row_lengths(rows.select([4, 0, 4])).tolist() == [7, 3, 7]


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_ten_million_steps_are_not_counted_before_the_first(monkeypatch, mode):
    """Epochs are made as they come, of which there are millions."""
    made, units = [], Batches._units
    monkeypatch.setattr(
        Batches, "_units", lambda self, epoch: made.append(epoch) or units(self, epoch)
    )
    many, few = batches(**mode, max_steps=10_000_000), batches(**mode, max_steps=12)
    assert many.steps == 10_000_000
    assert many.trained_rows().tolist() == list(range(len(LENGTHS)))
    assert list(islice(many, 12)) == list(few)
    epochs = [many.epoch_at(step) for step in range(13)]
    assert epochs == [few.epoch_at(step) for step in range(13)] == sorted(epochs)
    assert max(made) < 30


@pytest.mark.parametrize(
    ("packing", "batching"), [(True, "token_budget"), (False, "token_budget"), (False, "random")]
)
def test_batches_after_any_pass_are_those_of_the_whole(packing: bool, batching: str) -> None:
    lengths = np.random.default_rng(0).integers(1, 64, 61)
    settings = Training(batching=batching, epochs=3, per_device_train_batch_size=2, max_length=64)
    made = Batches(lengths, settings, packing=packing, world_size=2)
    whole = list(made)
    for passes in (0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 1, len(whole)):
        assert list(made.after(passes)) == whole[passes:]
