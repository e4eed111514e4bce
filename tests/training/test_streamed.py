"""Rows that are read while training goes on: steps, resuming, processes."""

from collections import Counter
from itertools import chain, islice

import pytest
import torch
from test_resume import LENGTH, assert_same_state, interrupted
from training_setup import loaded, logs_of, model, rows, run_training

from tunewright import RecipeError, RowError, RunError
from tunewright.recipe import Training
from tunewright_hf.batching.row_stream import RowStream, Window
from tunewright_hf.batching.streaming_sampler import StreamedBatches, ahead

MODES = {
    "random": {"batching": "random"},
    "length_grouped": {"batching": "length_grouped"},
    "token_budget": {},
    "named budget": {"tokens_per_batch": 50},
    "packing": {"packing": True, "max_length": 40},
}


class Numbers:
    """A stream of windows of 12, 5, 0 and 9 rows, another order in each epoch; seen: the rows up to
    there."""

    def __init__(self):
        self.rows, self.given, self.asked = rows(26), 0, []

    def __len__(self):
        return self.given

    def windows(self, epoch, first, seen):
        self.asked.append((epoch, first, seen))
        order = torch.randperm(26, generator=torch.Generator().manual_seed(epoch)).tolist()
        count = seen.get("rows", 0)
        for number, (start, end) in enumerate(((0, 12), (12, 17), (17, 17), (17, 26))):
            if number >= first:
                count += end - start
                self.given += end - start
                yield Window(self.rows.select(order[start:end]), {"rows": count})

    def summary(self, seen):
        return [f"{seen.get('rows', 0)} rows seen"]


def batches(max_steps=20, packing=False, rank=0, world_size=1, stream=None, **training):
    settings = {"per_device_train_batch_size": 2, "max_steps": max_steps, **training}
    return StreamedBatches(
        stream if stream is not None else Numbers(),
        Training(**settings),
        packing=packing,
        rank=rank,
        world_size=world_size,
    )


def ids(passes):
    return [sorted(tuple(row["input_ids"]) for row in each) for each in passes]


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_every_row_comes_once_an_epoch(mode):
    made = batches(80, **mode)
    assert isinstance(made.stream, RowStream)
    passes = ids(made)
    assert len(passes) == len(made) == 80
    counts = Counter(chain(*passes))
    # as many epochs for all, but for the last one
    assert max(counts.values()) - min(counts.values()) <= 1
    assert len(counts) == 26
    assert passes == ids(batches(80, **mode)) != ids(batches(80, **mode, seed=1))


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_processes_share_the_rows_of_each_pass(mode):
    one = ids(batches(12, **mode, gradient_accumulation_steps=2))
    ranks = [ids(batches(12, **mode, rank=rank, world_size=2)) for rank in range(2)]
    assert [len(each) for each in ranks] == [12, 12]
    assert all(all(each) for each in ranks)
    together = [sorted(chain(*each)) for each in zip(*ranks, strict=True)]
    assert together == [sorted(chain(*one[at : at + 2])) for at in range(0, 24, 2)]


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_from_any_place_on_it_is_the_same_stream(mode):
    whole, states = [], []
    made = batches(40, **mode)
    for each in made:
        whole.append(each)
        states.append(made.state())
    for at in range(0, 40, 3):
        again = batches(40, **mode)
        again.go_to(states[at])
        assert ids(again) == ids(whole[at + 1 :])
        assert again.state() == states[-1]
        assert [again.epoch_at(step) for step in range(at, 41)] == [
            made.epoch_at(step) for step in range(at, 41)
        ]


def test_an_epoch_of_one_window_may_end_at_a_checkpoint():
    class One(Numbers):
        def windows(self, epoch, first, seen):
            yield Window(self.rows, {"rows": 26})

    made, again = (batches(steps, stream=One(), batching="random") for steps in (13, 14))
    list(made)
    again.go_to(made.state())
    assert len(list(again)) == 1
    assert again.place.epoch == 1


def test_windows_that_were_trained_are_not_asked_for_again():
    made = batches(9, batching="random")
    list(made)
    again = batches(10, batching="random")
    again.go_to(made.state())
    list(again)
    assert again.stream.asked == [(0, 3, {"rows": 17})]


def test_epochs_are_whole_passes():
    made = batches(14, batching="random")  # 26 rows in an epoch, 2 in a step
    list(made)
    assert [made.epoch_at(step) for step in (0, 1, 13, 14)] == [0, 0, 0, 1]


def dropping():
    return loaded(model(dropout=0.2))


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_resumed_equals_uninterrupted(tmp_path, mode):
    settings = {**LENGTH, **mode}
    whole, _ = run_training(tmp_path / "whole", dropping(), Numbers(), save_steps=6, **settings)
    first, checkpoint = interrupted(
        tmp_path / "parts", dropping(), at=6, data=Numbers(), **settings
    )
    second, result = run_training(
        tmp_path / "parts", dropping(), Numbers(), checkpoint=checkpoint, save_steps=6, **settings
    )
    assert result.steps == 12
    assert logs_of(first) + logs_of(second) == logs_of(whole)
    assert_same_state(*(tmp_path / name / "checkpoints" / "step-12" for name in ("whole", "parts")))
    assert second.events[-1].message == whole.events[-1].message
    assert second.events[-1].message.endswith(" rows seen")


def test_what_a_stream_needs_is_reported(tmp_path):
    with pytest.raises(RecipeError, match=r"training.max_steps: is missing"):
        run_training(tmp_path, loaded(model()), Numbers(), max_steps=None)
    with pytest.raises(RecipeError, match="the longest row has"):
        list(batches(tokens_per_batch=4))
    with pytest.raises(RecipeError, match="packing fills its rows itself"):
        batches(packing=True, batching="length_grouped")


def test_a_stream_without_rows_ends():
    class Empty(Numbers):
        def windows(self, epoch, first, seen):
            yield Window(self.rows.select([]), {"rows": 0})

    with pytest.raises(RunError, match="no row is left: 0 rows seen"):
        list(batches(stream=Empty()))


def test_an_item_is_made_while_the_one_before_is_used():
    made = []

    def items():
        for number in range(5):
            made.append(number)
            yield number
        raise RowError("is broken", place="a.jsonl:6")

    found = ahead(items())
    assert list(islice(found, 2)) == [0, 1]
    found.close()
    assert made == [0, 1, 2]
    with pytest.raises(RowError, match=r"a\.jsonl:6"):
        list(ahead(items()))
