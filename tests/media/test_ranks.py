"""Two processes train on media as one does on the same global batch, also where one of them has
none; and rows that are read while training goes on."""

import json
from pathlib import Path
from typing import Any

import pytest

import forked
import tunewright
from media.test_recipes import COLOURS, QUESTION, pictures, recipe
from media.test_stages import compared
from tunewright.events import Evaluated, Event, Logged

FAMILY = {"name": "qwen", "tiny_variant": "qwen2_vl"}
KEPT = ("loss", "grad_norm", "tokens")
SFT = {"stage": "sft"}


def mostly_text(folder: Path) -> Path:
    """Sixteen rows, of which four have a picture: most batches of two have none."""
    pictures(folder, 2)
    rows: list[Any] = []
    for number in range(16):
        name = list(COLOURS)[number % 2]
        talk = [{"from": "human", "value": f"Say {name} {number}."}]
        images = []
        if number % 4 == 1:
            images = [f"{name}{number // 8}.png"]
            talk[0]["value"] = f"<image>{QUESTION}"
        rows.append(
            {"conversations": [*talk, {"from": "gpt", "value": f"{name}."}], "images": images}
        )
    path = folder / "mixed.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return path


def asked(folder: Path, data: Path, share: int, **more: Any) -> dict[str, Any]:
    training = {
        "per_device_train_batch_size": share,
        "per_device_eval_batch_size": share,
        "batching": "random",
        "precision": "fp32",
        "logging_steps": 1,
        "max_steps": 3,
        "lr_scheduler_type": "constant",
    }
    folder.mkdir()
    options = FAMILY | more.pop("family", {})
    made = recipe(folder, data=[{"path": str(data)}], training=training, loggers=[], **more)
    return made | {"family": options}


def one(made: dict[str, Any]) -> list[dict[str, float]]:
    found: list[dict[str, float]] = []

    def listen(event: Event) -> None:
        if isinstance(event, Logged | Evaluated):
            found.append({name: event.metrics[name] for name in KEPT if name in event.metrics})

    tunewright.train(made, on_event=listen)
    return found


def two(made: dict[str, Any]) -> Any:
    worker = Path(__file__).with_name("ranks_worker.py")
    done = forked.run(worker, json.dumps(made), processes=2)
    assert done.codes == [0, 0], done.error[-3000:]
    (line,) = [line for line in done.output.splitlines() if line.startswith("RESULT ")]
    return json.loads(line.removeprefix("RESULT "))


CASES = {
    # towers are frozen, and not sharded: no rank waits for another one's
    "frozen": {},
    "projector": {"family": {"train_projector": True}},
    "tower, packed": {
        "family": {"train_tower": True},
        "stage": {"name": "sft", "packing": True},
    },
    "fsdp": {"family": {"train_projector": True}, "accelerators": ["fsdp"]},
    "fsdp, frozen": {"accelerators": ["fsdp"]},
    "deepspeed": {
        "family": {"train_projector": True},
        "accelerators": [{"name": "deepspeed", "stage": 3}],
    },
    "deepspeed, tower": {
        "family": {"train_tower": True, "train_projector": True},
        "accelerators": [{"name": "deepspeed", "stage": 3}],
    },
}
OFTEN = ("projector", "fsdp")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=() if each in OFTEN else pytest.mark.long) for each in CASES]
)
def test_two_processes_are_one(name: str, tmp_path: Path) -> None:
    sections: dict[str, Any] = dict(CASES[name])
    alone = {key: each for key, each in sections.items() if key != "accelerators"}
    data = mostly_text(tmp_path)
    expected = one(asked(tmp_path / "one", data, 4, **(SFT | alone)))
    found = two(asked(tmp_path / "two", data, 2, **(SFT | sections)))
    assert len(found) == len(expected) == 3
    for mine, right in zip(found, expected, strict=True):
        mine.pop("tokens"), right.pop("tokens")  # with a medium of their own
        assert mine == pytest.approx(right, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["reward", pytest.param("dpo", marks=pytest.mark.long)])
def test_pairs_on_two_processes(stage: str, tmp_path: Path) -> None:
    data = compared(tmp_path, "pairs")
    sections: dict[str, Any] = {"stage": stage, "family": {"train_projector": True}}
    expected = one(asked(tmp_path / "one", data, 4, **sections))
    found = two(asked(tmp_path / "two", data, 2, **sections))
    for mine, right in zip(found, expected, strict=True):
        mine.pop("tokens"), right.pop("tokens")
        assert mine == pytest.approx(right, rel=1e-4)


@pytest.mark.slow
def test_streamed(tmp_path: Path) -> None:
    """Rows that are read while training goes on, on one process and on two."""
    dataset = {"name": "chat", "streaming": True, "shuffle_buffer": 4}
    sections: dict[str, Any] = {"dataset": dataset, "family": {"train_projector": True}} | SFT
    data = mostly_text(tmp_path)
    expected = one(asked(tmp_path / "one", data, 4, **sections))
    found = two(asked(tmp_path / "two", data, 2, **sections))
    for mine, right in zip(found, expected, strict=True):
        mine.pop("tokens"), right.pop("tokens")
        assert mine == pytest.approx(right, rel=1e-4)
