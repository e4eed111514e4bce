"""Recipes of a tiny model that takes media, and their data."""

import json
from pathlib import Path
from typing import Any

from tunewright import check
from tunewright.run import Run
from tunewright.types import Data, DataRequest

RECIPE: dict[str, Any] = {"model": "tiny", "family": {"name": "qwen", "tiny_variant": "qwen2_vl"}}
STAGES = {
    "messages": "sft",
    "text": "pretrain",
    "preference": "dpo",
    "unpaired": "kto",
    "prompts": "grpo",
}


def asked(folder: Path, rows: str = "messages", **more: Any) -> tuple[Run, DataRequest]:
    """A run and the request for its data. more: of the recipe; options of the dataset by
    `dataset`."""
    rewards = {"rewards": [{"name": "length", "target": 9}]} if rows == "prompts" else {}
    recipe = RECIPE | {
        "data": [{"path": str(folder / "rows.jsonl")}],
        "stages": [{"name": STAGES[rows]} | rewards],
        "output": str(folder / "run"),
        "training": {"max_length": 2000, **more.pop("training", {})},
        "dataset": {"name": "chat", "cache": str(folder / "cache"), **more.pop("dataset", {})},
    }
    run = Run(check.resolve(recipe | more))
    return run, run.data_request(run.load(weights="none"), 0)


def build(folder: Path, rows: str = "messages", **more: Any) -> Data:
    run, request = asked(folder, rows, **more)
    data: Data = run.call("dataset", "build_dataset", request)
    return data


def write(folder: Path, *records: dict[str, Any]) -> None:
    text = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "rows.jsonl").write_text(text)


def talk(question: str, answer: str = "yes", **columns: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns, **columns}


def whole(run: Run, request: DataRequest, conversation: list[dict[str, Any]]) -> Any:
    """Ids of a conversation as transformers' processor makes them. conversation: media in parts."""
    processor = request.loaded.processor
    return processor.apply_chat_template(conversation, tokenize=True)["input_ids"][0]
