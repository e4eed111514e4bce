"""Recipes with a quantizer and LoRA on a tiny twin, and what comes of them."""

import json
from pathlib import Path
from typing import Any

import torch

from tunewright import events
from tunewright.check import resolve
from tunewright.run import Run, train
from tunewright.types import LoadedModel

IDS = torch.arange(24).reshape(2, 12)  # (B, T)
WORDS = ["river", "stone", "light", "seven", "garden", "wind", "paper"]


def recipe(quantizer: Any = None, **more: Any) -> dict[str, Any]:
    found = {
        "model": "tiny",
        "family": {"name": "qwen", "device": "cpu", "tiny_hidden_size": 128},
        "template": "chatml",
        "stage": "sft",
        "loggers": [],
        "data": [{"path": "none.jsonl"}],
        "adapter": {"name": "lora", "rank": 8},
        "training": {"precision": "fp32"},
        "output": "none",
        **more,
    }
    return found | ({"quantizer": quantizer} if quantizer else {})


def run_of(quantizer: Any = None, **more: Any) -> Run:
    return Run(resolve(recipe(quantizer, **more)))


def logits(loaded: LoadedModel) -> torch.Tensor:
    with torch.no_grad():
        return loaded.model.eval()(input_ids=IDS).logits.float()


def gradients(loaded: LoadedModel) -> dict[str, torch.Tensor]:
    model = loaded.model.train()
    model.zero_grad()
    model(input_ids=IDS, labels=IDS).loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def learn(loaded: LoadedModel, steps: int = 3) -> None:
    """A few large steps, so that B is not zero any more."""
    weights = [p for p in loaded.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=0.02)
    for _ in range(steps):
        loaded.model.train()(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    loaded.model.eval()


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def losses(
    folder: Path, quantizer: Any, stage: str, precision: str = "fp32", **more: Any
) -> list[float]:
    """The losses that a run of `stage` logs."""
    lines = [" ".join(WORDS[n % 5 : n % 5 + 3]) for n in range(8)]
    rows: list[dict[str, Any]] = [
        {"prompt": f"Line {n}?", "completion": x} for n, x in enumerate(lines)
    ]
    if stage != "sft":
        rows = [
            {"prompt": f"Line {n}?", "chosen": x, "rejected": " ".join(reversed(x.split()))}
            for n, x in enumerate(lines)
        ]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    logged: list[float] = []

    def note(event: events.Event) -> None:
        if isinstance(event, events.Logged) and "loss" in event.metrics:
            logged.append(event.metrics["loss"])

    training = {
        "precision": precision,
        "epochs": 8,
        "learning_rate": 5e-3,
        "per_device_train_batch_size": 4,
        "logging_steps": 1,
        "max_length": 64,
    }
    asked = recipe(
        quantizer,
        stage=stage,
        data=[{"path": str(path)}],
        training=training,
        output=str(folder / "run"),
        **more,
    )
    train(resolve(asked), on_event=note)
    return logged
