"""Rows and recipes of field cases, which stand in the folder of the test."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Command = Callable[..., tuple[int, str, str]]

TINY = {"name": "qwen", "tiny_hidden_size": 16, "tiny_layers": 1}
ASKED = {"role": "user", "content": "High water in Bergen?"}
SAID = {"role": "assistant", "content": "At ten past four."}
RESULT = {"role": "tool", "content": "04:10"}
CALL = {"name": "get_tide", "arguments": {"port": "Bergen"}}
CALLED = {"role": "assistant", "content": "", "tool_calls": [{"function": CALL}]}
SCHEMA = {"type": "object", "properties": {"port": {"type": "string"}}}
TOOL = {"name": "get_tide", "description": "High water", "parameters": SCHEMA}
WORDS = {"instruction": "Name a bird.", "output": "A wren."}


def write(name: str, *rows: Any) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def preview(recipe: Callable[..., str], tunewright: Command) -> Command:
    """preview(row, …, sections): what `data preview` says of these rows."""

    def shown(*rows: Any, **sections: Any) -> tuple[int, str, str]:
        write("a.jsonl", *rows)
        return tunewright("data", "preview", recipe(**sections), "-n", "3")

    return shown


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def recipe() -> Callable[..., str]:
    """recipe(sections): the file of a recipe that trains two steps on a.jsonl."""

    def written(**sections: Any) -> str:
        shared = {
            "model": "tiny",
            "family": TINY,
            "data": [{"path": "a.jsonl"}],
            "stage": "sft",
            "training": {"max_steps": 2, "per_device_train_batch_size": 2},
            "loggers": ["console"],
            "output": "out",
        }
        kept = {key: value for key, value in (shared | sections).items() if value is not None}
        Path("r.yaml").write_text(yaml.safe_dump(kept))
        return "r.yaml"

    return written
