"""Precision: what the forward pass computes in, and what trained weights are kept in."""

from collections.abc import Collection
from typing import Any

import torch

from tunewright import RecipeError

__all__ = ["resolve", "restore_dtypes", "set_trained_dtypes"]

_HALVES = (torch.bfloat16, torch.float16)


def resolve(precision: str, device: torch.device) -> str:
    """auto: bf16 on a GPU that has it, or a CPU with matrix units for it, else fp32. Raises
    RecipeError where the device cannot do it.
    """
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
    """Whether it is a CPU with matrix units for bf16 (AMX): others take longer with it than with
    fp32."""
    return device.type == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16"))


def set_trained_dtypes(
    model: Any, precision: str, trained: Collection[str] | None = None
) -> dict[str, torch.dtype]:
    """Keep trained weights in fp32, since steps are too small for half precision; with fp32, all
    other weights too. With pure_bf16, keep all weights in bf16.

    trained: names of the trained parameters; None: all that require a gradient. Returns the dtypes
    that changed weights had, for `restore_dtypes`.
    """
    stored = {}
    for name, parameter in model.named_parameters():
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
    """Undo `set_trained_dtypes`: the result is saved in the dtype of the model that it was made
    from."""
    for name, parameter in model.named_parameters():
        if name in stored:
            parameter.data = parameter.data.to(stored[name])
