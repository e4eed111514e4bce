"""Trainings of a tiny twin with and without accelerators, by the recipe."""

import json
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

import forked
from tunewright import check
from tunewright.errors import Stopped
from tunewright.events import Evaluated, Event, Logged, Notice
from tunewright.run import train

WORDS = ["river", "stone", "light", "seven", "garden", "wind", "paper", "quiet", "north", "apple"]


@dataclass
class Trained:
    folder: Path
    events: list[Event] = field(default_factory=list)

    @property
    def losses(self) -> list[float]:
        return [event.metrics["loss"] for event in self.events if isinstance(event, Logged)]

    @property
    def metrics(self) -> list[dict[str, float]]:
        """Loss, gradient norm and counted tokens of each step, and losses of evaluations and how
        near generated answers are."""
        kept = ("loss", "grad_norm", "tokens", "rouge-l")
        found = [e.metrics for e in self.events if isinstance(e, Logged | Evaluated)]
        return [{name: each[name] for name in kept if name in each} for each in found]

    @property
    def notices(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Notice)]

    @property
    def weights(self) -> dict[str, Any]:
        files = sorted((self.folder / "run/model").glob("*.safetensors"))
        return {name: tensor for file in files for name, tensor in load_file(file).items()}

    def checkpoint(self, step: int) -> dict[str, bytes]:
        folder = self.folder / f"run/checkpoints/step-{step}"
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def asked(folder: Path, *accelerators: Any, **more: Any) -> dict[str, Any]:
    """A recipe. more: sections; `training` and `family` are laid over those of here."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [" ".join(WORDS[row % 5 : row % 5 + 2 + row % 5]) for row in range(16)]
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{row}?"},
                {"role": "assistant", "content": line},
            ]
        }
        for row, line in enumerate(lines)
    ]
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    training = {
        "learning_rate": 5e-3,
        "lr_scheduler_type": "constant",
        "max_steps": 4,
        "logging_steps": 1,
        "per_device_train_batch_size": 4,
        "batching": "random",
        "max_length": 64,
        "precision": "fp32",
    }
    family = {"name": "llama", "tiny_hidden_size": 32, "tiny_layers": 4}
    return {
        "model": "tiny",
        "stage": "sft",
        "data": [{"path": str(folder / "rows.jsonl")}],
        "loggers": [],
        "accelerators": list(accelerators),
        "output": str(folder / "run"),
        **more,
        "training": training | more.get("training", {}),
        "family": family | more.get("family", {}),
    }


def go(
    folder: Path, *accelerators: Any, stop_at: int | None = None, resume: bool = False, **more: Any
) -> Trained:
    """Train. stop_at: the step in whose report SIGTERM arrives."""
    trained = Trained(folder)

    def listen(event: Event) -> None:
        trained.events.append(event)
        if isinstance(event, Logged) and event.step == stop_at:
            signal.raise_signal(signal.SIGTERM)

    recipe = check.resolve(asked(folder, *accelerators, **more))
    try:
        train(recipe, resume=resume, on_event=listen)
    except Stopped:
        assert stop_at is not None
    return trained


def on_two_processes(script: str, *arguments: Any) -> Any:
    """What rank 0 of two processes that run a script of this folder prints as its result."""
    done = forked.run(Path(__file__).with_name(script), *map(str, arguments), processes=2)
    assert done.codes == [0, 0], done.error[-3000:]
    (line,) = [line for line in done.output.splitlines() if line.startswith("RESULT ")]
    return json.loads(line.removeprefix("RESULT "))


def assert_same_weights(one: Trained, other: Trained) -> None:
    assert one.weights.keys() == other.weights.keys()
    for name, tensor in one.weights.items():
        assert tensor.equal(other.weights[name]), name
