"""Precision of the forward pass, and dtypes of trained weights."""

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from tunewright import RecipeError

__all__ = ["resolve", "restore_dtypes", "set_trained_dtypes"]

_HALVES = (torch.bfloat16, torch.float16)


def resolve(precision: str, device: torch.device) -> str:
    """Resolve auto: bf16 on GPUs that support it and CPUs with matrix units for it, else fp32.
    Raises RecipeError if the device does not support the precision."""
    on_gpu = device.type == "cuda"
    if precision == "auto":
        return (
            "bf16"
            if (torch.cuda.is_bf16_supported() if on_gpu else cpu_multiplies_bf16(device))
            else "fp32"
        )
    if precision == "fp16" and not on_gpu:
        raise RecipeError("fp16 needs a GPU", place="training.precision", hint="set bf16 or fp32")
    if precision in ("bf16", "pure_bf16") and on_gpu and not torch.cuda.is_bf16_supported():
        raise RecipeError(
            "this GPU has no bf16", place="training.precision", hint="set fp16 or fp32"
        )
    return precision


def cpu_multiplies_bf16(device: torch.device) -> bool:
    """Whether the device is a CPU with matrix units for bf16 (AMX). Others are slower with it than
    with fp32."""
    return device.type == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16"))


def set_trained_dtypes(
    model: Any,
    precision: str,
    trained: Collection[str] | None = None,
    part: nn.Module | None = None,
) -> dict[str, torch.dtype]:
    """Convert trained weights to fp32, since updates are too small for half precision; with fp32,
    all other weights too. With pure_bf16, convert all weights to bf16.

    trained: names of the trained parameters; None: all that require a gradient. part: the module of
    the model whose weights are changed; None: all. Returns the dtypes that changed weights had, for
    `restore_dtypes`.
    """
    stored = {}
    inside = None if part is None else {id(parameter) for parameter in part.parameters()}
    for name, parameter in model.named_parameters():
        if inside is not None and id(parameter) not in inside:
            continue
        is_trained = parameter.requires_grad if trained is None else name in trained
        if precision == "pure_bf16":
            wanted = torch.bfloat16 if parameter.is_floating_point() else parameter.dtype
        elif parameter.dtype in _HALVES and (is_trained or precision == "fp32"):
            wanted = torch.float32
        else:
            wanted = parameter.dtype
        if parameter.dtype != wanted:
            stored[name] = parameter.dtype
            parameter.data = parameter.data.to(wanted)
    return stored


def restore_dtypes(model: Any, stored: dict[str, torch.dtype]) -> None:
    """Undo `set_trained_dtypes`: the result is saved in the original model's dtype."""
    for name, parameter in model.named_parameters():
        if name in stored:
            parameter.data = parameter.data.to(stored[name])
