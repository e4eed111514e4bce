"""Stand-ins for quantized weights, which cannot run on fake tensors.

They have the bytes that the quantizer declares (`weight_bytes`), which the conformance suite
compares with a real model's.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tunewright.types import LoadedModel
from tunewright_hf.models.modules import linear_body

__all__ = ["QuantizedLinear", "quantize"]


class _Dequantized(torch.autograd.Function):
    """x @ W.T where W exists only while it is used, as in the kernels of quantizers."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, layer: "QuantizedLinear") -> Tensor:
        ctx.layer = layer
        return F.linear(states, layer.dequantized(states.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] @ ctx.layer.dequantized(gradients[0].dtype), None


class QuantizedLinear(nn.Linear):
    """A linear layer whose weight is a number of bytes."""

    def __init__(self, layer: nn.Linear, size: int) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight = nn.Parameter(_bytes(layer.weight, size), requires_grad=False)
        self.bias = layer.bias

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """A weight in full, of any content."""
        shape = self.out_features, self.in_features
        return torch.empty(shape, dtype=dtype, device=self.weight.device)

    def forward(self, states: Tensor) -> Tensor:
        if torch.is_autocast_enabled(states.device.type):
            states = states.to(torch.get_autocast_dtype(states.device.type))
        made: Tensor = _Dequantized.apply(states, self)
        return made if self.bias is None else made + self.bias.to(made.dtype)


def _bytes(like: Tensor, size: int) -> Tensor:
    """Bytes that are fake where `like` is, as all memory of a planned model."""
    with torch.no_grad():
        return like.detach().new_empty(math.ceil(size)).to(torch.uint8)


def quantize(loaded: LoadedModel, weight_bytes: Callable[[tuple[int, ...], str], float]) -> None:
    """Replace the linear layers that quantizers quantize by stand-ins: all but the head and what
    adapters leave alone.

    weight_bytes: of the quantizer.
    """
    model = loaded.model
    dtype = str(model.dtype).removeprefix("torch.")
    names = linear_body(loaded)
    for name in names:
        layer = model.get_submodule(name)
        size = math.ceil(weight_bytes(tuple(layer.weight.shape), dtype))
        model.set_submodule(name, QuantizedLinear(layer, size))
    loaded.quantized = frozenset(names)
