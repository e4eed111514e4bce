"""Sources whose shares follow their loss: the bandit by hand, and trainings that resume bit for bit
and are equal on several ranks."""

import json
import math

import numpy as np
import pytest
from accelerators_setup import asked, assert_same_weights, go, on_two_processes

from tunewright import check
from tunewright.events import Logged, Notice
from tunewright.recipe import Training
from tunewright.source import RecipeProblems
from tunewright_hf.batching.online_mixing import OnlineBatches, SourceBandit

ONLINE = {"name": "chat", "mixing": "online"}


def sources(folder):
    """Two sources: the rows of `asked`, and rows that all say the same."""
    folder.mkdir(parents=True, exist_ok=True)
    row = {"messages": [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "a a"}]}
    (folder / "same.jsonl").write_text(f"{json.dumps(row)}\n" * 12, "utf-8")
    return [{"path": str(folder / name)} for name in ("rows.jsonl", "same.jsonl")]


def test_bandit_by_hand():
    bandit = SourceBandit(2, seed=0)
    assert bandit.probabilities().tolist() == [0.5, 0.5]
    bandit.learn(0, 3.0)  # reward 0.1 × 3 / 0.5
    assert bandit.rewards == pytest.approx([0.6, 0.0])
    # step 1: e = min(1/2, sqrt(ln 2 / 2)) = 1/2, so both shares are e
    assert bandit.probabilities().tolist() == [0.5, 0.5]
    bandit.learn(1, 1.0)
    assert bandit.rewards == pytest.approx([0.6, 0.2])
    # step 2: e = sqrt(ln 2 / 4), and e of the step before is 1/2
    now = math.sqrt(math.log(2) / 4)
    weights = [math.exp(0.5 * 0.6), math.exp(0.5 * 0.2)]
    expected = [(1 - 2 * now) * weight / sum(weights) + now for weight in weights]
    assert bandit.probabilities().tolist() == pytest.approx(expected)
    bandit.learn(0, math.nan)  # teaches nothing
    assert bandit.rewards == pytest.approx([0.6, 0.2])
    assert (bandit.steps, bandit.step) == ([2, 1], 3)


def test_what_is_hard_is_drawn_more_and_nothing_is_never_drawn():
    bandit = SourceBandit(3, seed=5)
    for _ in range(600):
        source = bandit.drawn()
        bandit.learn(source, [4.0, 1.0, 1.0][source])
    assert bandit.steps[0] > 1.2 * max(bandit.steps[1:])
    assert min(bandit.steps) > 60
    assert sum(bandit.steps) == 600


@pytest.mark.parametrize("batching", ["random", "token_budget"])
def test_each_step_has_rows_of_one_source_that_all_take_their_turn(batching):
    lengths = np.arange(5, 35)
    training = Training(
        batching=batching, per_device_train_batch_size=2, gradient_accumulation_steps=2, epochs=4
    )

    def batches(rank):
        return OnlineBatches(lengths, training, sizes=[20, 10], rank=rank, world_size=2)

    ranks = [batches(rank) for rank in range(2)]
    streams = [each.after(0) for each in ranks]
    seen = np.zeros(30, dtype=int)
    for step in range(ranks[0].steps):
        drawn = [[next(stream) for _ in range(2)] for stream in streams]
        rows = [row for rank in drawn for part in rank for row in part]
        assert len({row >= 20 for row in rows}) == 1
        assert ranks[0].source == ranks[1].source == int(rows[0] >= 20)
        np.add.at(seen, rows, 1)
        for each in ranks:
            each.learn(1.0 + step % 3)
    assert [next(stream, None) for stream in streams] == [None, None]
    for part in (seen[:20], seen[20:]):
        assert part.max() - part.min() <= 1 + (batching == "token_budget")


def run(folder, **more):
    training = {"max_steps": 8, "save_steps": 4, "learning_rate": 0.02}
    found = sources(folder)
    return go(
        folder, dataset=ONLINE, data=found, training=training | more.pop("training", {}), **more
    )


def test_resumed_is_uninterrupted_bit_for_bit(tmp_path):
    whole = run(tmp_path / "whole")
    stopped = run(tmp_path / "parts", stop_at=5)
    resumed = run(tmp_path / "parts", resume=True)
    assert stopped.losses + resumed.losses == whole.losses
    assert_same_weights(resumed, whole)
    assert resumed.checkpoint(8) == whole.checkpoint(8)
    logged = [each.metrics for each in whole.events if isinstance(each, Logged)]
    shares = [(each["data_0_share"], each["data_1_share"]) for each in logged]
    assert all(sum(each) == pytest.approx(1) for each in shares)
    assert len(set(shares)) > 3
    notices = [each.message for each in whole.events if isinstance(each, Notice)]
    assert any("data.1: 12 rows, mixed online" in each for each in notices)


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    sections = {"dataset": ONLINE, "training": {"max_steps": 6}}
    one = go(tmp_path / "one", **sections, data=sources(tmp_path / "one"))
    sections["training"]["per_device_train_batch_size"] = 2
    sections["data"] = sources(tmp_path / "two")
    two = on_two_processes(
        "accelerators_worker.py", tmp_path / "two", json.dumps([]), json.dumps(sections)
    )
    assert len(two) == len(one.metrics) == 6
    for mine, right in zip(two, one.metrics, strict=True):
        assert mine == pytest.approx(right, rel=1e-4)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"data": []}, "stage sft has 1"),
        ({"weight": 2}, "a source has a weight"),
        ({"dataset": {**ONLINE, "streaming": True}}, "streaming reads them later"),
        ({"dataset": {**ONLINE, "order": "length"}}, "length does not go with mixing online"),
        ({"training": {"dataloader_workers": 2}}, "prepares batches ahead"),
        ({"stage": {"name": "grpo", "rewards": ["length"]}}, "says nothing of the prompts of grpo"),
    ],
)
def test_refused(tmp_path, more, message):
    found = sources(tmp_path)
    if "data" in more:
        more["data"] = found[:1]
    else:
        found[1] |= {"weight": more.pop("weight", 1)}
    recipe = asked(tmp_path, dataset=ONLINE, data=found)
    training = recipe["training"] | more.pop("training", {})
    with pytest.raises(RecipeProblems, match=message):
        check.resolve(recipe | more | {"training": training})
