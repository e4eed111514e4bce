"""Property tests of batches, packs and their masks, for any rows, sizes and number of ranks."""

from collections import Counter
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewright import RunError
from tunewright.recipe import Training
from tunewright_hf.batching.batch_sampler import Batches, budget_for, within_budget
from tunewright_hf.batching.collators import Packed, Padded
from tunewright_hf.batching.units import packed
from tunewright_hf.losses.causal_lm import shift

lengths = st.lists(st.integers(1, 60), min_size=1, max_size=50)
modes = st.sampled_from(
    [
        {"batching": "random"},
        {"batching": "length_grouped"},
        {},
        {"tokens_per_batch": 64},
        {"packing": True, "max_length": 64},
        {"packing": True, "max_length": 64, "tokens_per_batch": 80},
    ]
)


@settings(max_examples=150, deadline=None)
@given(
    lengths=lengths,
    mode=modes,
    size=st.integers(1, 5),
    accumulation=st.integers(1, 3),
    world_size=st.integers(1, 4),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_processes_have_equal_steps_and_every_row_is_trained_once_an_epoch_or_counted(
    lengths: list[int],
    mode: dict[str, Any],
    size: int,
    accumulation: int,
    world_size: int,
    epochs: int,
    seed: int,
) -> None:
    how = {**mode}
    packing = how.pop("packing", False)
    training = Training(
        per_device_train_batch_size=size,
        gradient_accumulation_steps=accumulation,
        epochs=epochs,
        seed=seed,
        **how,
    )
    ranks = []
    for rank in range(world_size):
        try:
            ranks.append(
                Batches(lengths, training, packing=packing, rank=rank, world_size=world_size)
            )
        except RunError:  # too few rows for so many processes
            assert len(lengths) * epochs < world_size or packing or "batching" not in mode
            return
    passes = [list(each) for each in ranks]
    assert {len(each) for each in passes} == {len(ranks[0])}
    assert all(chain.from_iterable(passes))  # no pass is empty
    assert ranks[0].steps == -(-len(ranks[0]) // accumulation)
    rows = Counter(chain.from_iterable(chain.from_iterable(passes)))
    assert rows.total() + ranks[0].left_over == epochs * len(lengths)
    assert max(rows.values()) <= epochs  # disjoint
    assert epochs * len(lengths) - rows.total() < max(1, world_size) * (
        1 if mode.get("batching") else 64
    )
    if not ranks[0].left_over:
        assert ranks[0].epoch_at(ranks[0].steps) == epochs


@given(lengths, st.integers(60, 200), st.integers(0, 2**32 - 1))
def test_a_budget_is_kept_and_every_row_comes_once(
    lengths: list[int], budget: int, seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(len(lengths))
    made = within_budget(order, np.array(lengths), budget)
    assert sorted(chain.from_iterable(made)) == list(range(len(lengths)))
    assert all(max(lengths[row] for row in batch) * len(batch) <= budget for batch in made)


@given(lengths, st.integers(1, 8))
def test_a_found_budget_makes_as_few_batches_as_so_many_rows_each_would(
    lengths: list[int], rows: int
) -> None:
    found = np.array(lengths)
    budget = budget_for(np.bincount(found), rows)
    made = within_budget(np.argsort(-found, kind="stable"), found, budget)
    assert len(made) <= -(-len(lengths) // rows)
    assert max(max(lengths[row] for row in batch) * len(batch) for batch in made) <= rows * max(
        lengths
    )
    if rows == 1:
        assert all(len(batch) == 1 for batch in made) or budget == 0


@given(
    st.lists(st.integers(1, 90), min_size=1, max_size=60),
    st.integers(1, 64),
    st.integers(0, 2**32 - 1),
)
def test_a_pack_is_never_longer_than_it_may_be(
    lengths: list[int], capacity: int, seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(len(lengths))
    packs = packed(order, np.array(lengths), capacity)
    assert sorted(chain.from_iterable(packs)) == list(range(len(lengths)))
    loads = sorted(sum(lengths[row] for row in each) for each in packs)
    assert all(
        load <= capacity or [load] == [lengths[row] for row in each]
        for load, each in _loads(packs, lengths)
    )
    assert len(loads) < 2 or loads[0] + loads[1] > capacity  # no two of them could have been one


def _loads(packs: list[list[int]], lengths: list[int]) -> list[tuple[int, list[int]]]:
    return [(sum(lengths[row] for row in each), each) for each in packs]


@pytest.mark.parametrize("spread", [0.4, 0.8, 1.2])
def test_packs_are_full(spread: float) -> None:
    lengths = np.clip(np.random.default_rng(0).lognormal(5, spread, 5000), 5, 2048).astype(int)
    packs = packed(np.arange(5000), lengths, 2048)
    assert lengths.sum() / (2048 * len(packs)) > 0.98


# ---- masks ---------------------------------------------------------------------------------------


@st.composite
def rows(draw: st.DrawFn) -> dict[str, Any]:
    ids = draw(st.lists(st.integers(3, 99), min_size=1, max_size=8))
    labels = [token if draw(st.booleans()) else -100 for token in ids]
    weights = draw(
        st.none() | st.lists(st.sampled_from([0.0, 0.5, 2.0]), min_size=len(ids), max_size=len(ids))
    )
    return {"input_ids": ids, "labels": labels, "loss_weights": weights}


@given(st.lists(rows(), min_size=1, max_size=6))
def test_packed_and_padded_rows_train_the_same_tokens_on_the_same_past(
    made: list[dict[str, Any]],
) -> None:
    def trained(batch: dict[str, torch.Tensor]) -> Counter[Any]:
        """(tokens of its own row before a trained one, that token, its weight)."""
        targets, weights = shift(batch["labels"], batch.get("loss_weights"))
        places = batch["inputs"].get("position_ids")
        found = []
        for line, at in torch.nonzero(targets != -100).tolist():
            start = 0 if places is None else at - int(places[line, at])
            past = tuple(batch["inputs"]["input_ids"][line, start : at + 1].tolist())
            found.append((past, int(targets[line, at]), float(weights[line, at])))
        return Counter(found)

    expected = Counter(
        (
            tuple(row["input_ids"][:at]),
            row["labels"][at],
            (row["loss_weights"] or [1.0] * len(row["labels"]))[at],
        )
        for row in made
        for at in range(1, len(row["labels"]))
        if row["labels"][at] != -100
    )
    assert trained(Packed()(made)) == expected
    assert trained(Padded(0)(made)) == expected
