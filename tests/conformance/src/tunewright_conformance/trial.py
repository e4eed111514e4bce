"""A small run of the kernel's own, on a tiny twin, and all that it said and left."""

import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright import events
from tunewright.errors import Stopped
from tunewright.run import train
from tunewright.types import StageResult
from tunewright_conformance.bench import a_family, family_options

WORDS = ["river", "stone", "light", "seven", "garden", "wind", "paper", "quiet", "north", "apple"]


def rows_of(sort: str, count: int) -> list[dict[str, Any]]:
    """Toy rows that a stage can learn: each line is one of a few sentences, of different
    lengths."""
    lines = [" ".join(WORDS[number % 5 : number % 5 + 3 + number % 4]) for number in range(count)]
    asked = [f"Line {number}?" for number in range(count)]
    if sort == "text":
        return [{"text": line} for line in lines]
    if sort == "prompts":
        return [{"prompt": ask} for ask in asked]
    if sort == "preference":
        pairs = zip(asked, lines, strict=True)
        return [{"prompt": ask, "chosen": line, "rejected": _turned(line)} for ask, line in pairs]
    if sort == "unpaired":
        answers = [line if number % 2 else _turned(line) for number, line in enumerate(lines)]
        rows = zip(asked, answers, strict=True)
        return [
            {"prompt": ask, "completion": answer, "label": n % 2 == 1}
            for n, (ask, answer) in enumerate(rows)
        ]
    assert sort == "messages", f"the suite has no toy rows of the sort {sort!r} yet"
    return [
        {"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": line}]}
        for ask, line in zip(asked, lines, strict=True)
    ]


def _turned(line: str) -> str:
    """A worse answer: the words from the last to the first."""
    return " ".join(reversed(line.split()))


@dataclass
class Trial:
    """What came of one run."""

    result: StageResult | None  # None: it was stopped
    logged: list[events.Logged]
    folder: Path

    @property
    def losses(self) -> list[float]:
        return self.metric("loss")

    def metric(self, name: str) -> list[float]:
        """Of each step."""
        return [event.metrics[name] for event in self.logged]

    def weights(self) -> dict[str, Any]:
        """The trained weights by name."""
        from safetensors.torch import load_file

        assert self.result is not None
        files = sorted(self.result.path.glob("*.safetensors"))
        return {name: tensor for file in files for name, tensor in load_file(file).items()}

    def checkpoint(self) -> dict[str, bytes]:
        """The files of the last checkpoint, by name: weights, optimizer, sampler and random
        states."""
        last = max(self.folder.glob("checkpoints/step-*"), key=lambda path: int(path.name[5:]))
        return {
            path.relative_to(last).as_posix(): path.read_bytes()
            for path in last.rglob("*")
            if path.is_file()
        }


def recipe(
    stage: dict[str, Any], sort: str, folder: Path, count: int, **training: Any
) -> dict[str, Any]:
    """A recipe of one stage on `count` toy rows; everything that it does not say is the default."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"{sort}.jsonl"
    data.write_text(
        "".join(json.dumps(row) + "\n" for row in rows_of(sort, count)), encoding="utf-8"
    )
    family = a_family()
    settings = {
        "learning_rate": 5e-3,
        "lr_scheduler_type": "constant",
        "max_length": 64,
        "logging_steps": 1,
        "per_device_train_batch_size": 4,
        "precision": "fp32",
        **training,
    }
    return {
        "model": "tiny",
        "family": {"name": family.name, **family_options(family)},
        "data": [{"path": str(data)}],
        "stage": stage,
        "training": settings,
        "loggers": [],
        "output": str(folder / "run"),
    }


def go(recipe: dict[str, Any], *, stop_at: int | None = None, resume: bool = False) -> Trial:
    """Train. stop_at: the step in whose report SIGTERM arrives."""
    logged: list[events.Logged] = []

    def listen(event: events.Event) -> None:
        if isinstance(event, events.Logged):
            logged.append(event)
            if event.step == stop_at:
                signal.raise_signal(signal.SIGTERM)

    try:
        result = train(recipe, resume=resume, on_event=listen)
    except Stopped:
        assert stop_at is not None
        result = None
    return Trial(result, logged, Path(recipe["output"]))
