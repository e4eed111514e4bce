"""The adapter's own files: all trained weights, and what they are."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tunewright import RunError

__all__ = ["load", "save_as_adapter"]

_WEIGHTS, _CONFIG = "mixture_of_depths.safetensors", "mixture_of_depths.json"


def save_as_adapter(model: Any) -> None:
    """Make `model.save_pretrained` write the adapter's files: the model's own layout has no place
    for routers."""

    def save_pretrained(
        save_directory: Any, state_dict: dict[str, torch.Tensor] | None = None, **_: Any
    ) -> None:
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        found = state_dict or {name: each.data for name, each in model.named_parameters()}
        names = {name for name, _ in model.named_parameters()}
        weights = {
            name: each.detach().cpu().contiguous() for name, each in found.items() if name in names
        }
        save_file(weights, folder / _WEIGHTS, metadata={"format": "pt"})
        facts = {"format": 1, "base_model": model.name_or_path}
        (folder / _CONFIG).write_text(json.dumps(facts, indent=1), encoding="utf-8")

    model.save_pretrained = save_pretrained


def load(model: Any, folder: Path) -> None:
    """Read the weights of a folder into the model. Raises RunError if they do not fit."""
    path = folder / _WEIGHTS
    if not path.is_file():
        raise RunError("holds no mixture of depths", place=str(folder))
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise RunError(f"is damaged: {error}", place=str(path)) from error
    own = dict(model.named_parameters())
    wrong = {
        name
        for name in weights.keys() | own.keys()
        if name not in weights or name not in own or weights[name].shape != own[name].shape
    }
    if wrong:
        raise RunError(
            f"does not fit the model: {min(wrong)} and {len(wrong) - 1} more differ",
            place=str(path),
            hint="keep the options that it was trained with",
        )
    with torch.no_grad():
        for name, each in own.items():
            each.copy_(weights[name])
