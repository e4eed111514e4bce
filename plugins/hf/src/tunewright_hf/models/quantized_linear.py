"""Gradients through linear layers whose own kernels have none, or keep too much for them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tunewright_hf.models.dequantized import plain_weight

__all__ = ["through"]


class _Through(torch.autograd.Function):
    """The layer's own forward pass; backward multiplies by its weight, dequantized again: only the
    quantized weight is kept. The weight itself gets no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Any, kernel: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.layer = layer
        return kernel(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients  # (..., out)
        return gradient @ plain_weight(ctx.layer, gradient.dtype), None, None


def through(x: Tensor, layer: Any, kernel: Callable[[Tensor], Tensor]) -> Tensor:
    """kernel(x), (..., in) to (..., out), with the gradient of a product with `layer`'s dequantized
    weight.

    Where activations are rounded in the forward pass, that is the straight-through estimator:
    torchao's kernels for rounded activations give no gradient, without an error.
    """
    return _Through.apply(x, layer, kernel)
