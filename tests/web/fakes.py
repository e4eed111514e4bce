"""Run folders as the kernel writes them, made without training."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

RECIPE = {"model": "tiny", "adapter": {"name": "lora"}, "stages": [{"name": "sft"}]}


def run_folder(folder: Path, status: str = "completed", **state: Any) -> Path:
    """A run folder with run.json."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"status": status, "stages": [], "data": {}, "recipe": RECIPE, "libraries": {}}
    (folder / "run.json").write_text(json.dumps(content | state))
    return folder


def stage_started(total: int, *, first: int = 0, number: int = 1, time: float = 100.0) -> str:
    return _line(
        event="StageStarted",
        time=time,
        stage="sft",
        number=number,
        of=number,
        total_steps=total,
        first_step=first,
    )


def logged(step: int, loss: float | None = 1.0, total: int = 100, **metrics: float) -> str:
    return _line(
        event="Logged",
        time=100.0 + step,
        stage="sft",
        step=step,
        total_steps=total,
        metrics={"loss": loss, "tokens": 10 * step} | metrics,
    )


def write_events(folder: Path, lines: Iterable[str], mode: str = "w") -> Path:
    """events.jsonl of a run that has started."""
    path = folder / "events.jsonl"
    with path.open(mode, encoding="utf-8") as file:
        if mode == "w":
            file.write(_line(event="RunStarted", time=100.0, folder=str(folder)))
        file.writelines(lines)
    return path


def _line(**event: Any) -> str:
    return json.dumps(event) + "\n"


def steps_of(answer: Mapping[str, Any], key: str = "loss") -> list[int]:
    """Steps of a curve in an answer of the API."""
    found: list[int] = answer["series"].get(key, {}).get("step", [])
    return found
