"""Rows of an epoch: how many of each source, in which order, and the validation split."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.running import build, chat_run, request, tokenizer
from tunewright import RecipeError
from tunewright.recipe import Training
from tunewright_dataset_chat.mix import Mix, counts, split
from tunewright_hf.batching.batch_sampler import Batches

sources = st.lists(st.tuples(st.integers(1, 60), st.floats(0.05, 20)), min_size=1, max_size=5)


def by_source(rows: np.ndarray, sizes: tuple[int, ...]) -> Counter[int]:
    return Counter(np.searchsorted(np.cumsum(sizes), rows, side="right").tolist())


# ---- counts and order ----------------------------------------------------------------------------


@given(sources)
def test_concatenated_sources_give_their_weight(made: list[tuple[int, float]]) -> None:
    sizes, weights = zip(*made, strict=True)
    for size, weight, count in zip(
        sizes, weights, counts(sizes, weights, "concatenate", "first"), strict=True
    ):
        assert abs(count - size * weight) <= 0.5 or count == 1


@given(sources, st.sampled_from(["first", "all"]))
def test_interleaved_sources_have_their_shares(made: list[tuple[int, float]], stop: Any) -> None:
    sizes, weights = zip(*made, strict=True)
    found = counts(sizes, weights, "interleave", stop)
    ratios = [size / weight for size, weight in made]
    length = min(ratios) if stop == "first" else max(ratios)  # rows for each unit of weight
    for count, size, weight in zip(found, sizes, weights, strict=True):
        assert abs(count - length * weight) <= 0.51 or count == 1
        if stop == "first":
            assert count <= size  # no row comes twice
        else:
            assert count >= size  # no row is left out
    assert any(count == size for count, size in zip(found, sizes, strict=True))


mixes = st.builds(
    lambda made, even, seed: Mix(*map(tuple, zip(*made, strict=True)), even, seed),  # type: ignore[arg-type]
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 100)), min_size=1, max_size=4),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)


@given(mixes, st.integers(1, 5))
def test_epochs_have_their_counts_and_every_row_its_turn(mix: Mix, epochs: int) -> None:
    orders = [mix(epoch) for epoch in range(epochs)]
    for order in orders:
        assert by_source(order, mix.sizes) == dict(enumerate(mix.counts))
    seen = np.bincount(np.concatenate(orders), minlength=sum(mix.sizes))
    for start, size in zip(np.cumsum([0, *mix.sizes]), mix.sizes, strict=False):
        of_source = seen[start : start + size]
        # no row again before all others of its source
        assert of_source.max() - of_source.min() <= 1
    assert [mix(epoch).tolist() for epoch in range(epochs)] == [order.tolist() for order in orders]


@given(mixes)
def test_interleaved_sources_are_spread_evenly(mix: Mix) -> None:
    even = Mix(mix.sizes, mix.counts, True, mix.seed)
    order, total = even(0), sum(even.counts)
    for at in range(1, total, max(1, total // 7)):
        found = by_source(order[:at], even.sizes)
        for source, count in enumerate(even.counts):
            assert abs(found[source] - count * at / total) <= 1 + len(even.counts)


def test_epochs_and_seeds_differ() -> None:
    mix = Mix((50, 50), (50, 100), False, 7)
    orders = {
        tuple(Mix((50, 50), (50, 100), False, seed)(epoch)) for seed in (7, 8) for epoch in (0, 1)
    }
    assert len(orders) == 4
    assert len(set(mix(0)) ^ set(range(100))) == 0


def test_the_sampler_takes_the_order_that_it_is_given() -> None:
    mix = Mix((4, 6), (8, 3), False, 3)
    settings = Training(per_device_train_batch_size=2, epochs=2, batching="random")
    batches = Batches([5] * 10, settings, order=mix)
    rows = [row for batch in batches for row in batch]
    assert rows == [*mix(0), *mix(1)]
    assert batches.steps == 11
    assert batches.epoch_at(11) == 2
    packed = Batches([5] * 10, Training(max_length=10, epochs=1), packing=True, order=mix)
    assert Counter(row for batch in packed for row in batch) == Counter(mix(0).tolist())


# ---- validation ----------------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 3), min_size=2, max_size=50),
    st.floats(0.01, 0.99) | st.integers(1, 20),
    st.integers(0, 2**32 - 1),
)
def test_a_split_is_disjoint_whole_and_the_same_again(
    sizes: list[int], validation: float, seed: int
) -> None:
    records = np.repeat(np.arange(len(sizes)), sizes)
    try:
        train, held = split(records, validation, seed)
    except RecipeError:
        return
    assert sorted([*train, *held]) == list(range(len(records)))
    assert not set(records[train]) & set(records[held])
    wanted = round(validation * len(records)) if validation < 1 else validation
    assert wanted <= len(held) < wanted + max(sizes)
    again = split(records, validation, seed)
    assert all((one == other).all() for one, other in zip((train, held), again, strict=True))


@pytest.mark.parametrize("validation", [0.001, 9, 0.99])
def test_a_split_leaves_something_on_both_sides(validation: float) -> None:
    with pytest.raises(RecipeError, match=r"leaves nothing to (train|validate) on of 9 rows"):
        split(np.arange(9), validation, 0)


# ---- in a recipe ---------------------------------------------------------------------------------


def write(path: Path, letter: str, rows: int) -> str:
    turns = ({"role": "user", "content": letter}, {"role": "assistant", "content": letter})
    path.write_text((json.dumps({"messages": turns}) + "\n") * rows)
    return path.name


def letters(data: Any, rows: Any) -> Counter[str]:
    texts = tokenizer().batch_decode([data.train[int(row)]["input_ids"] for row in rows])
    return Counter(text.split("user\n")[1][0] for text in texts)


def test_weights_stop_and_notes(tmp_path: Path) -> None:
    names = [
        write(tmp_path / f"{letter}.jsonl", letter, rows) for letter, rows in (("a", 6), ("b", 10))
    ]
    plain = build(chat_run(tmp_path), request(tmp_path, *names))
    assert plain.order is None
    entries = [{"path": names[0], "weight": 2}, {"path": names[1], "weight": 0.5}]
    weighted = build(chat_run(tmp_path), request(tmp_path, *entries))
    assert letters(weighted, weighted.order(0)) == {"a": 12, "b": 5}
    assert "data.0: 12 of 6 rows an epoch (70.6 % of it)" in weighted.notes
    for stop, expected in (("first", {"a": 6, "b": 6}), ("all", {"a": 10, "b": 10})):
        data = build(chat_run(tmp_path, mixing="interleave", stop=stop), request(tmp_path, *names))
        assert letters(data, data.order(0)) == expected
        assert letters(data, data.order(0)[:4]) == {"a": 2, "b": 2}
    assert (
        weighted.order(0) != build(chat_run(tmp_path), request(tmp_path, *entries, seed=9)).order(0)
    ).any()


def test_validation_rows_are_not_trained(tmp_path: Path) -> None:
    words = [f"{first}{second}" for first in "abcd" for second in "vwxyz"]
    (tmp_path / "a.txt").write_text("".join(f"{f'{word} ' * 30}\n" for word in words))
    asked = request(tmp_path, {"path": "a.txt", "weight": 2}, rows="text", max_length=20)
    data = build(chat_run(tmp_path, validation=0.25), asked)
    assert list(data.evals) == ["validation"]
    held = data.evals["validation"]

    def documents(rows: Any) -> set[str]:
        return {
            tokenizer().decode(row["input_ids"]).split()[1][:2]
            for row in rows
            if len(row["input_ids"]) == 20
        }

    assert documents(data.train) | documents(held) == set(words)
    # no document is in both with some of its pieces
    assert not documents(data.train) & documents(held)
    assert (
        f"{len(held)} of {len(data.train) + len(held)} rows are set aside for validation"
        in data.notes
    )
    assert Counter(data.order(0).tolist()) == dict.fromkeys(range(len(data.train)), 2)
    with pytest.raises(RecipeError, match="eval_data has a set validation"):
        build(
            chat_run(tmp_path, validation=1),
            request(tmp_path, "a.txt", eval_entries={"validation": asked.entries}),
        )
