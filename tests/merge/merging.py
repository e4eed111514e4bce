"""Runs on tiny twins, their merges, and what a merge holds."""

import json
from pathlib import Path
from typing import Any

import torch
import typer
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner, Result

import tunewright
from tunewright_merge import command


def train(folder: Path, model: str, *, adapter: Any = "full", **training: Any) -> Path:
    """Train a tiny model; returns the run folder."""
    seed = training.get("seed", 0)
    texts = [f"Number {n} of {seed}" for n in range(8)]
    rows = [
        {"messages": [{"role": "user", "content": each}, {"role": "assistant", "content": each}]}
        for each in texts
    ]
    data = folder / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    recipe = {
        "model": model,
        "family": {"name": "qwen", "device": "cpu"},
        "template": "chatml",
        "adapter": adapter,
        "stages": ["sft"],
        "data": [{"path": str(data)}],
        "eval_data": {"held": [{"path": str(data)}]},
        "training": {"max_steps": 2, "learning_rate": 0.01, "precision": "fp32", **training},
        "output": str(folder / "run"),
        "loggers": [],
    }
    tunewright.train(recipe)
    return folder / "run"


def loud(folder: Path) -> None:
    """Random matrices in place of an adapter's own: it changes what the model says."""
    file = folder / "adapter_model.safetensors"
    draw = torch.Generator().manual_seed(0)
    drawn = {
        name: torch.randn(each.shape, generator=draw) / 5 for name, each in load_file(file).items()
    }
    save_file(drawn, file, {"format": "pt"})


def merge(*arguments: Any) -> Result:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)


def weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a model's folder."""
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def facts(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "merge.json").read_text())
    return found
