"""A small run of the kernel on a tiny twin, with everything it emitted and wrote."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunewright import events
from tunewright.check import resolve
from tunewright.errors import Stopped
from tunewright.folder import result as result_of
from tunewright.run import Run, train
from tunewright.types import StageResult
from tunewright_conformance.bench import a_family, family_options

NOT_EQUAL = ("time", "tokens_per_second", "memory")  # what differs between equal runs
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
    if sort == "labelled":
        return [{"text": line, "label": str(len(line.split()) % 2)} for line in lines]
    if sort == "ranked":
        return [
            {"prompt": ask, "chosen": line, "rejected": [_turned(line), ask]}
            for ask, line in zip(asked, lines, strict=True)
        ]
    if sort == "stepwise":
        return [
            {"prompt": ask, "completions": [line, _turned(line)], "labels": [True, False]}
            for ask, line in zip(asked, lines, strict=True)
        ]
    if sort == "retrieval":
        return [
            {"query": ask, "positive": line, "negative": _turned(line) + "."}
            for ask, line in zip(asked, lines, strict=True)
        ]
    assert sort == "messages", f"the suite has no toy rows of the sort {sort!r} yet"
    return [
        {"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": line}]}
        for ask, line in zip(asked, lines, strict=True)
    ]


def _turned(line: str) -> str:
    """A worse answer: the words in reverse order."""
    return " ".join(reversed(line.split()))


@dataclass
class Trial:
    """Results of one run."""

    result: StageResult | None  # None: it was stopped
    logged: list[events.Logged]
    folder: Path
    evaluated: list[events.Evaluated] = field(default_factory=list)

    @property
    def losses(self) -> list[float]:
        return self.metric("loss")

    def metric(self, name: str) -> list[float]:
        """Values of a metric, by step."""
        return [event.metrics[name] for event in self.logged]

    def weights(self) -> dict[str, Any]:
        """The trained weights by name."""
        from safetensors.torch import load_file

        assert self.result is not None
        files = sorted(self.result.path.glob("*.safetensors"))
        return {name: tensor for file in files for name, tensor in load_file(file).items()}

    def last_checkpoint(self) -> Path:
        steps = self.folder.glob("checkpoints/step-*")
        return max(steps, key=lambda path: int(path.name[5:]))

    def checkpoint(self) -> dict[str, bytes]:
        """The files of the last checkpoint, by name: weights, optimizer, sampler and random
        states."""
        last = self.last_checkpoint()
        return {
            path.relative_to(last).as_posix(): path.read_bytes()
            for path in last.rglob("*")
            if path.is_file()
        }


def recipe(
    stage: dict[str, Any],
    sort: str,
    folder: Path,
    count: int,
    sections: Mapping[str, Any] | None = None,
    **training: Any,
) -> dict[str, Any]:
    """A recipe of one stage on `count` toy rows; everything that it does not say is the default.

    sections: further sections of the recipe, such as {"adapter": "lora"}.
    """
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
    plain = {
        "model": "tiny",
        "family": {"name": family.name, **family_options(family)},
        "data": [{"path": str(data)}],
        "stage": stage,
        "training": settings,
        "loggers": [],
        "output": str(folder / "run"),
    }
    return merged(plain, sections or {})


def check_resumed(whole: Trial, stopped: Trial, resumed: Trial) -> None:
    """A run that was stopped and resumed is the one that was not: the metrics of every step, and
    all files of the last checkpoint, to the bit."""
    assert stopped.result is None, "it did not stop when it was asked to"
    assert len(stopped.logged) < len(whole.logged)
    assert [metrics(event) for event in stopped.logged + resumed.logged] == [
        metrics(event) for event in whole.logged
    ]
    expected, found = whole.checkpoint(), resumed.checkpoint()
    assert expected.keys() == found.keys()
    assert not [name for name in expected if found[name] != expected[name]]


def metrics(event: events.Logged) -> dict[str, float]:
    return {name: value for name, value in event.metrics.items() if name not in NOT_EQUAL}


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Sections of both; fields of a section that both have are laid over each other."""
    both = {
        key: {**one[key], **other[key]}
        for key in one.keys() & other.keys()
        if isinstance(one[key], Mapping) and isinstance(other[key], Mapping)
    }
    return {**one, **other, **both}


def launch(recipe: dict[str, Any], processes: int) -> Trial:
    """Train on several processes, as the command line does. Fails with what they say."""
    folder = Path(recipe["output"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asked = recipe | {"launch": {"processes": processes, "main_port": port}}
    file = folder.with_suffix(".yaml")
    file.write_text(json.dumps(asked), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "tunewright", "train", str(file)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    state = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    lines = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    logged = []
    for fields in map(json.loads, lines):
        if fields.pop("event") == "Logged":
            logged.append(events.Logged(**{key: fields[key] for key in fields if key != "time"}))
    return Trial(result_of(folder, state["stages"][-1]), logged, folder)


def go(recipe: dict[str, Any], *, stop_at: int | None = None, resume: bool = False) -> Trial:
    """Train. stop_at: the step in whose report SIGTERM arrives."""
    trial = Trial(None, [], Path(recipe["output"]))

    def listen(event: events.Event) -> None:
        if isinstance(event, events.Evaluated):
            trial.evaluated.append(event)
        if isinstance(event, events.Logged):
            trial.logged.append(event)
            if event.step == stop_at:
                signal.raise_signal(signal.SIGTERM)

    try:
        trial.result = train(recipe, resume=resume, on_event=listen)
    except Stopped:
        assert stop_at is not None
    return trial


def loss_of(recipe: dict[str, Any], model: str) -> float:
    """Mean loss of the trained tokens of a recipe's data, under the model in a folder."""
    import torch

    asked = {**recipe, "model": model, "adapter": "full", "eval_data": {}}
    run = Run(resolve({key: value for key, value in asked.items() if key != "optimizer"}))
    loaded = run.load(trainable=False)
    data = run.call("dataset", "build_dataset", run.data_request(loaded))
    total, count = 0.0, 0
    for row in data.train:
        ids, labels = (torch.tensor([row[name]]) for name in ("input_ids", "labels"))
        with torch.no_grad():
            loss = loaded.model(input_ids=ids, labels=labels).loss
        trained = int((labels[:, 1:] != -100).sum())
        total, count = total + float(loss) * trained, count + trained
    return total / count
