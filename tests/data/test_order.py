"""Order of examples (curriculum): by length or as given, in training too, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunewright import check, run
from tunewright.events import Event, Logged
from tunewright.source import RecipeProblems
from tunewright_dataset_chat.mix import ByLength, Given, Mix

TRAINING = {
    "batching": "random",
    "per_device_train_batch_size": 1,
    "logging_steps": 1,
    "epochs": 2,
    "precision": "fp32",
    "learning_rate": 1e-3,
}


def recipe(folder: Path, order: str, **more: Any) -> dict[str, Any]:
    """A recipe with six examples of different lengths in two sources."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, sizes in (("a", [30, 2, 14]), ("b", [22, 6, 10])):
        rows = [
            {
                "messages": [
                    {"role": "user", "content": "Hi"},
                    {"role": "assistant", "content": "one " * size},
                ]
            }
            for size in sizes
        ]
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return {
        "model": "tiny",
        "family": {"name": "qwen", "device": "cpu"},
        "template": "chatml",
        "stage": "sft",
        "data": [{"path": str(folder / f"{name}.jsonl")} for name in "ab"],
        "dataset": {"name": "chat", "order": order},
        "loggers": [],
        "output": str(folder / "run"),
        **more,
        "training": TRAINING | more.get("training", {}),
    }


def tokens(folder: Path, order: str, **more: Any) -> list[int]:
    """Tokens of each step's example."""
    counted: list[int] = []

    def listen(event: Event) -> None:
        if isinstance(event, Logged):
            counted.append(int(event.metrics["tokens"]))

    run.train(check.resolve(recipe(folder, order, **more)), on_event=listen)
    return np.diff([0, *counted]).tolist()


def test_short_ones_first_in_every_epoch(tmp_path: Path) -> None:
    found = tokens(tmp_path, "length")
    assert len(found) == 12
    assert found[:6] == found[6:] == sorted(found[:6])
    assert len(set(found)) == 6


def test_as_the_sources_have_them(tmp_path: Path) -> None:
    found = tokens(tmp_path, "given")
    by_length = sorted(found[:6])
    assert found[:6] == found[6:] == [by_length[place] for place in (5, 0, 3, 4, 1, 2)]
    shuffled = tokens(tmp_path / "shuffled", "shuffled")
    assert sorted(shuffled[:6]) == by_length
    assert shuffled[:6] != shuffled[6:]


def test_weights_and_order_go_together() -> None:
    mix = Mix((4, 2), (2, 4), False, seed=3)
    lengths = np.array([9, 1, 5, 5, 5, 2])
    for epoch in range(3):
        rows = mix(epoch)
        ordered = ByLength(lengths, mix, 3)(epoch)
        assert sorted(ordered) == sorted(rows)
        assert (np.diff(lengths[ordered]) >= 0).all()
        assert Given(6, mix)(epoch).tolist() == sorted(rows)
    assert Given(6, None)(0).tolist() == [0, 1, 2, 3, 4, 5]
    alone = ByLength(lengths, None, 3)
    assert alone(0)[0] == 1 and alone(0)[-1] == 0
    assert {tuple(alone(epoch)) for epoch in range(9)} != {tuple(alone(0))}  # ties are shuffled
    assert alone(0).tolist() == alone(0).tolist()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"training": {"batching": "token_budget"}}, "batching: is token_budget, which sorts"),
        ({"stage": {"name": "sft", "packing": True}}, "packing: chooses the order of examples"),
        (
            {"dataset": {"name": "chat", "order": "given", "mixing": "interleave"}},
            "given does not go with mixing interleave",
        ),
        (
            {
                "dataset": {"name": "chat", "order": "length", "streaming": True},
                "training": {"max_steps": 3},
            },
            "streaming reads them later",
        ),
    ],
)
def test_refused(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeProblems, match=message):
        check.resolve(recipe(tmp_path, "length", **more))
