"""A small run, trained on a few rows, for tests of the verbs that use one."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

import tunewright

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def turn(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def chat(question: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"messages": [turn("user", question), turn("assistant", answer)], **more}


CALL = {"function": {"name": "weather", "arguments": {"city": "Paris"}}}
ROWS = [
    chat("Say hello to Ann.", "Hello, Ann!"),
    chat("Say hello to Ben.", "Hello, Ben!"),
    {"messages": [turn("user", "Weather?"), turn("assistant", "", tool_calls=[CALL])]}
    | {"tools": [TOOL]},
    chat("问候小明。", "你好，小明！"),
]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def train(folder: Path, **changes: Any) -> Path:
    """Run folder of a tiny model that was trained on ROWS."""
    data = write(folder / "rows.jsonl", ROWS)
    recipe = {
        "model": "tiny",
        "family": {"name": "qwen", "device": "cpu"},
        "template": "chatml",
        "adapter": "full",
        "data": [{"path": str(data)}],
        "eval_data": {"greetings": [{"path": str(data), "limit": 2}]},
        "stages": ["sft"],
        "training": {"max_steps": 3, "learning_rate": 0.01, "precision": "fp32"},
        "output": str(folder / "run"),
        "loggers": ["jsonl"],
    }
    tunewright.train(recipe | changes)
    return folder / "run"


_SHARED: list[Path] = []


def shared_run(factory: pytest.TempPathFactory) -> Path:
    """A run on ROWS that tests of one process share, and do not change."""
    if not _SHARED:
        _SHARED.append(train(factory.mktemp("shared")))
    return _SHARED[0]


def call(command: Any, *arguments: Any) -> Result:
    """Call a command; its errors are raised."""
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
