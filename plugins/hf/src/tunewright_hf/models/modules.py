"""Modules of a model by name, and the model below its adapters."""

import sys
from collections.abc import Iterable
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from tunewright import RecipeError
from tunewright.errors import did_you_mean

__all__ = ["layers", "linear", "matching", "train_only", "within"]


def base_model(model: Any) -> Any:
    """The model below its adapters: transformers' own. Where PEFT is not imported, it wraps
    nothing."""
    peft = sys.modules.get("peft")
    wrapped = peft is not None and isinstance(model, peft.PeftModel)
    return model.get_base_model() if wrapped else model


def within(name: str, parts: Iterable[str]) -> bool:
    """Whether a dotted name is, ends in, or lies below one of `parts`: `a.visual.proj` is within
    `visual`."""
    return any(f".{part}." in f".{name}." for part in parts)


def linear(model: Any) -> list[str]:
    """Full names of all linear layers, quantized and GPT-2's Conv1D included. Fused experts are
    none."""
    return [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)
    ]


def matching(names: Iterable[str], endings: Iterable[str], place: str) -> set[str]:
    """The names that are, or end in, one of `endings`. Raises RecipeError for an ending that
    nothing matches."""
    names = list(names)
    found: set[str] = set()
    for ending in endings:
        matches = {name for name in names if f".{name}".endswith(f".{ending}")}
        if not matches:
            hint = did_you_mean(ending, {name.rpartition(".")[2] for name in names})
            raise RecipeError(f"the model has no module {ending!r}", place=place, hint=hint)
        found |= matches
    return found


def layers(model: Any, exclude: Iterable[str]) -> tuple[str, int]:
    """Name and length of the list of the language model's layers. Raises RecipeError where there is
    none."""
    count = model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count and not within(name, exclude):
            return name, count
    raise RecipeError(
        f"{type(model).__name__} has no list of {count} layers",
        place="adapter",
        hint="use full or lora",
    )


def train_only(model: Any, names: Iterable[str]) -> None:
    """Set requires_grad on the parameters with these names, and on nothing else.

    Raises RecipeError where one of them is quantized, since integers have no gradient.
    """
    wanted = set(names)
    for name, parameter in model.named_parameters():
        if name in wanted and not parameter.is_floating_point():
            hint = "train an adapter, such as lora, or load the model without a quantizer"
            raise RecipeError(
                f"{name} is quantized and cannot be trained", place="adapter", hint=hint
            )
        parameter.requires_grad_(name in wanted)
