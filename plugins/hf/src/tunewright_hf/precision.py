"""Number formats: what the forward pass computes in, and what trained weights are kept in."""

from typing import Any, Literal

import torch

_HALVES = (torch.bfloat16, torch.float16)


def resolve(precision: str, device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    """auto: bf16 on a GPU that has it, else fp32."""
    if precision != "auto":
        return precision  # type: ignore[return-value]  # the recipe has checked it
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def widen(model: Any, precision: str) -> dict[str, torch.dtype]:
    """Keep trained weights in fp32, since steps are too small for half precision; with fp32, all other
    weights too.

    Returns the formats that trained weights had, for `narrow`.
    """
    stored = {}
    for name, parameter in model.named_parameters():
        if parameter.dtype in _HALVES and (parameter.requires_grad or precision == "fp32"):
            stored[name] = parameter.dtype
            parameter.data = parameter.data.float()
    return stored


def narrow(model: Any, stored: dict[str, torch.dtype]) -> None:
    """Undo `widen`: the result is saved in the format of the model that it was made from."""
    for name, parameter in model.named_parameters():
        if name in stored:
            parameter.data = parameter.data.to(stored[name])
