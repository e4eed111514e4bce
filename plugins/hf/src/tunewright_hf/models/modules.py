"""Modules of a model by name, and the base model below its adapters."""

import sys
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from tunewright import RecipeError
from tunewright.errors import did_you_mean
from tunewright.types import LoadedModel

__all__ = [
    "base_model",
    "is_packed",
    "layers",
    "linear",
    "linear_body",
    "matching",
    "quantized_modules",
    "train_only",
    "within",
]

_PLAIN = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def base_model(model: Any) -> Any:
    """transformers' model below its adapters. If PEFT is not imported, there are none."""
    peft = sys.modules.get("peft")
    wrapped = peft is not None and isinstance(model, peft.PeftModel)
    return model.get_base_model() if wrapped else model


def within(name: str, parts: Iterable[str]) -> bool:
    """Return whether a dotted name is, ends in, or lies below one of `parts`: `a.visual.proj` is
    within `visual`."""
    return any(f".{part}." in f".{name}." for part in parts)


def linear(model: Any, more: tuple[type, ...] = ()) -> list[str]:
    """Full names of all linear layers, including quantized ones and GPT-2's Conv1D, but not fused
    experts.

    more: further classes of linear layers, see LoadedModel.linear_types.
    """
    kinds = (nn.Linear, Conv1D, *more)
    return [name for name, module in model.named_modules() if isinstance(module, kinds)]


def linear_body(loaded: LoadedModel) -> list[str]:
    """Full names of the linear layers that are quantized after loading: all but the output head and
    what adapters leave alone (routers, experts, media towers)."""
    model = loaded.model
    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module is not head
        and not within(name, loaded.adapter_exclude)
    ]


def quantized_modules(model: Any) -> frozenset[str]:
    """Full names of the modules whose weights are quantized.

    A module is quantized if a parameter of it is packed (`is_packed`) or transformers' quantizer of
    the model says so, or if the model has a quantizer and the module keeps a matrix of integers as
    a buffer (GPTQ, AWQ).
    """
    quantizer = getattr(model, "hf_quantizer", None)
    found = set()
    for name, parameter in model.named_parameters():
        if is_packed(parameter) or (
            quantizer is not None and quantizer.param_needs_quantization(model, name)
        ):
            found.add(name.rpartition(".")[0])
    for name, buffer in model.named_buffers() if quantizer is not None else ():
        if buffer.ndim == 2 and not buffer.is_floating_point():
            found.add(name.rpartition(".")[0])
    return frozenset(found)


def is_packed(tensor: Any) -> bool:
    """Whether a tensor holds quantized numbers: a dtype other than float32, bfloat16, float16 and
    float64 (float8 too), or a tensor subclass, as of torchao and quanto, that is made of such."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        return tensor.dtype not in _PLAIN
    parts = (getattr(tensor, name) for name in flatten()[0])
    return any(is_packed(part) for part in parts if isinstance(part, torch.Tensor))


def matching(names: Iterable[str], endings: Iterable[str], place: str) -> set[str]:
    """Return the names that are, or end in, one of `endings`. Raises RecipeError for an ending
    that nothing matches."""
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
    """Return name and length of the list of the language model's layers. Raises RecipeError if
    there is none."""
    count = model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count and not within(name, exclude):
            return name, count
    raise RecipeError(
        f"{type(model).__name__} has no list of {count} layers",
        place="adapter",
        hint="use full or lora",
    )


def train_only(model: Any, names: Iterable[str], quantized: Collection[str] = ()) -> None:
    """Set requires_grad on the parameters with these names, and on nothing else.

    quantized: full names of the quantized modules, as LoadedModel.quantized has them. Raises
    RecipeError if a parameter of one of them is to be trained: such weights take no gradient steps.
    """
    wanted = set(names)
    for name, parameter in model.named_parameters():
        if name in wanted and name.rpartition(".")[0] in quantized:
            raise RecipeError(
                f"{name} is quantized and cannot be trained",
                place="adapter",
                hint="train an adapter, such as lora, or load the model without a quantizer",
            )
        parameter.requires_grad_(name in wanted)
