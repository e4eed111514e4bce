"""Runs on tiny twins, their exports, and what an export says."""

import json
from pathlib import Path
from typing import Any

import torch
import typer
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer
from typer.testing import CliRunner, Result

import tunewright
from tunewright_export import command

ROW = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Oh"}]}


def train(folder: Path, model: str, adapter: Any) -> Path:
    data = folder / "rows.jsonl"
    data.write_text("\n".join([json.dumps(ROW)] * 2))
    recipe = {
        "model": model,
        "family": {"name": "qwen", "device": "cpu"},
        "template": "chatml",
        "adapter": adapter,
        "stages": ["sft"],
        "data": [{"path": str(data)}],
        "training": {"max_steps": 2, "learning_rate": 0.02, "precision": "fp32"},
        "output": str(folder / "run"),
        "loggers": ["card"],
    }
    tunewright.train(recipe)
    return folder / "run"


def loud(folder: Path, seed: int) -> Path:
    """Random matrices in place of an adapter's own: it changes what the model says."""
    file = folder / "adapter_model.safetensors"
    draw = torch.Generator().manual_seed(seed)
    drawn = {
        name: torch.randn(each.shape, generator=draw) / 5 for name, each in load_file(file).items()
    }
    save_file(drawn, file, {"format": "pt"})
    return folder


def export(*arguments: Any) -> Result:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "export.json").read_text())
    return found


def says(model: Any, folder: Path) -> torch.Tensor:
    ids = AutoTokenizer.from_pretrained(folder)("Hello there", return_tensors="pt").input_ids
    with torch.no_grad():
        return model(input_ids=ids).logits  # type: ignore[no-any-return]


def distance(model: Any, folder: Path) -> float:
    """Largest distance of a model's linear layers from those of a plain checkpoint, relative."""
    plain = load_file(folder / "model.safetensors")
    own = dict(model.named_parameters())
    names = [name for name in plain if name.endswith("proj.weight")]
    return max(float((own[n] - plain[n]).norm() / plain[n].norm()) for n in names)
