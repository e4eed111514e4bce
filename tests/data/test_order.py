"""Order of examples (curriculum): by length, by a column or as given, in training too, and what it
refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunewright import check, run
from tunewright.errors import RowError
from tunewright.events import Event, Logged, Notice, Sampled
from tunewright.source import RecipeProblems
from tunewright_conformance.trial import check_resumed, go
from tunewright_dataset_chat.mix import Ascending, Given, Mix

TRAINING = {
    "batching": "random",
    "per_device_train_batch_size": 1,
    "logging_steps": 1,
    "epochs": 2,
    "precision": "fp32",
    "learning_rate": 1e-3,
}


SIZES: dict[str, list[int]] = {"a": [30, 2, 14], "b": [22, 6, 10]}
#: of the same records; text is a number as in a CSV file
DIFFICULTY: dict[str, list[Any]] = {"a": [3, "1.5", 2], "b": [-1, 1e3, 0.5]}
EASY_FIRST = [22, 10, 2, 14, 30, 6]  # their sizes
BY_COLUMN = {"name": "chat", "order": "ascending", "order_by": "difficulty"}


def recipe(
    folder: Path, order: str, numbers: dict[str, list[Any]] | None = None, **more: Any
) -> dict[str, Any]:
    """A recipe with six examples of different lengths in two sources. numbers: of their column
    difficulty."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, sizes in SIZES.items():
        rows: list[dict[str, Any]] = [
            {
                "messages": [
                    {"role": "user", "content": "Hi"},
                    {"role": "assistant", "content": "one " * size},
                ]
            }
            for size in sizes
        ]
        for row, number in zip(rows, (numbers or {}).get(name, []), strict=False):
            row["difficulty"] = number
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


def tokens(
    folder: Path, order: str, numbers: dict[str, list[Any]] | None = None, **more: Any
) -> list[int]:
    """Tokens of each step's example."""
    counted: list[int] = []

    def listen(event: Event) -> None:
        if isinstance(event, Logged):
            counted.append(int(event.metrics["tokens"]))

    run.train(check.resolve(recipe(folder, order, numbers, **more)), on_event=listen)
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


@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_by_the_numbers_of_a_column(tmp_path: Path, order: str) -> None:
    lengths = sorted(tokens(tmp_path / "length", "length")[:6])
    expected = [lengths[sorted(EASY_FIRST).index(size)] for size in EASY_FIRST]
    dataset = {**BY_COLUMN, "order": order}
    found = tokens(tmp_path, order, DIFFICULTY, dataset=dataset)
    assert found[:6] == found[6:] == (expected if order == "ascending" else expected[::-1])


def test_a_column_that_orders_is_read(tmp_path: Path) -> None:
    """Unread columns are an error; and evaluation sets need no such column."""
    dataset = {**BY_COLUMN, "on_unread": "error"}
    (tmp_path / "eval.jsonl").write_text('{"instruction": "Hi", "output": "one"}\n')
    evals = {"held": [{"path": str(tmp_path / "eval.jsonl")}]}
    assert tokens(tmp_path, "", DIFFICULTY, dataset=dataset, eval_data=evals)


def test_order_with_a_validation_split(tmp_path: Path) -> None:
    """The numbers stay with their rows."""
    numbers = {name: [-size for size in sizes] for name, sizes in SIZES.items()}
    found = tokens(tmp_path, "", numbers, dataset={**BY_COLUMN, "validation": 2})
    assert len(found) == 8
    assert found[:4] == found[4:] == sorted(found[:4], reverse=True)


def test_an_ordered_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    """Equal numbers are in another order in each epoch."""
    numbers = {name: [1, 1, 1] for name in SIZES}
    more = {"dataset": BY_COLUMN, "training": {"epochs": 3, "save_steps": 16}}

    def made(name: str) -> dict[str, Any]:
        return recipe(tmp_path / name, "", numbers, **more)

    whole = go(made("whole"))
    counted = np.diff([0, *whole.metric("tokens")]).tolist()
    assert sorted(counted[:6]) == sorted(counted[6:12])
    assert counted[:6] != counted[6:12]
    check_resumed(whole, go(made("parts"), stop_at=8), go(made("parts"), resume=True))


def test_prompts_by_a_column_that_a_reward_reads_too(tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": f"Say {n}.", "difficulty": n}) for n in (2, 0, 1)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    (tmp_path / "mine.py").write_text(
        "def hard(completions, difficulty, **columns):\n"
        "    return [float(each) for each in difficulty]\n"
    )
    made = recipe(tmp_path, "", dataset=BY_COLUMN, training={"epochs": 1})
    made["data"] = [{"path": str(tmp_path / "prompts.jsonl")}]
    made["stage"] = {"name": "grpo", "num_generations": 2, "max_new_tokens": 2}
    found: list[tuple[str, float]] = []

    def listen(event: Event) -> None:
        if isinstance(event, Sampled):
            found.append((event.prompt.split("Say ")[1][0], event.rewards["hard"]))

    override = f"stage.rewards=[{{name: {tmp_path}/mine.py:hard}}]"
    run.train(check.resolve(made, [override]), on_event=listen)
    assert found[::2] == [("0", 0.0), ("1", 1.0), ("2", 2.0)]


@pytest.mark.parametrize("number", ["hard", None, True, "nan", float("inf"), [1]])
def test_what_is_no_number_is_an_error_with_its_place(tmp_path: Path, number: Any) -> None:
    numbers = {"a": [3, number, 2], "b": [1, 2, 3]}
    made = recipe(tmp_path, "", numbers, dataset=BY_COLUMN)
    with pytest.raises(RowError, match=r"column 'difficulty' is .*, expected a number") as caught:
        run.train(check.resolve(made))
    assert str(caught.value.place).endswith("a.jsonl:2")
    made["dataset"] = {**BY_COLUMN, "on_bad_row": "skip"}
    notices: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Notice):
            notices.append(event.message)

    run.train(check.resolve(made), on_event=listen, overwrite=True)
    assert any("a.jsonl:2" in each and "left out" in each for each in notices)


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    dataset = {**BY_COLUMN, "order_by": "dificulty"}
    with pytest.raises(RowError, match=r"has no column 'dificulty'.*mean difficulty"):
        run.train(check.resolve(recipe(tmp_path, "", DIFFICULTY, dataset=dataset)))


def test_weights_and_order_go_together() -> None:
    mix = Mix((4, 2), (2, 4), False, seed=3)
    lengths = np.array([9, 1, 5, 5, 5, 2])
    for epoch in range(3):
        rows = mix(epoch)
        ordered = Ascending(lengths, mix, 3)(epoch)
        assert sorted(ordered) == sorted(rows)
        assert (np.diff(lengths[ordered]) >= 0).all()
        assert Given(6, mix)(epoch).tolist() == sorted(rows)
    assert Given(6, None)(0).tolist() == [0, 1, 2, 3, 4, 5]
    alone = Ascending(lengths, None, 3)
    assert alone(0)[0] == 1 and alone(0)[-1] == 0
    assert {tuple(alone(epoch)) for epoch in range(9)} != {tuple(alone(0))}  # ties are shuffled
    assert alone(0).tolist() == alone(0).tolist()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"dataset": {"name": "chat", "order": "ascending"}}, "ascending needs order_by"),
        ({"dataset": {"name": "chat", "order_by": "n"}}, "order_by does nothing without order"),
        ({"dataset": {**BY_COLUMN, "mixing": "online"}}, "ascending does not go with mixing onl"),
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
