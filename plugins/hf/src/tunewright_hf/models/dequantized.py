"""Plain weights of a quantized model, whatever library quantized it."""

import functools
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["forget", "make_dequantizable", "plain_weight", "was_dequantized"]

_ROWS = 1024  # of the identity matrix at a time
#: of transformers, and our own, on the model
_NOTES = (
    "_weight_conversions",
    "dequantize",
    "hf_quantizer",
    "is_quantized",
    "quantization_method",
)


def make_dequantizable(model: Any, quantized: Collection[str]) -> None:
    """Have `model.dequantize()` return the model with plain weights.

    quantized: full names of the quantized modules. transformers has that method on every model, but
    not a body for most libraries. Its own for bitsandbytes stays.
    """
    if str(getattr(model, "quantization_method", "")).endswith(("bitsandbytes", "BITS_AND_BYTES")):
        return
    model.dequantize = functools.partial(_dequantize, model, frozenset(quantized))


def plain_weight(layer: Any, dtype: torch.dtype) -> Tensor:
    """The weight, (out, in), with which a quantized linear layer computes.

    dtype: of the layer's input and of the result. Tensor subclasses dequantize themselves. Of other
    layers it is the output for the identity matrix, less the bias: every product but one is zero,
    so that nothing is rounded where there is no bias.
    """
    weight: Any = getattr(layer, "weight", None)
    if hasattr(weight, "__tensor_flatten__"):
        return weight.dequantize().detach().to(dtype)
    device = next(t.device for t in (*layer.parameters(), *layer.buffers()))
    bias = getattr(layer, "bias", None)
    parts = []
    with torch.no_grad():
        for start in range(0, layer.in_features, _ROWS):
            rows = torch.eye(
                min(_ROWS, layer.in_features - start), layer.in_features - start, dtype=dtype
            )
            rows = nn.functional.pad(rows, (start, 0)).to(device)
            found = layer(rows)
            parts.append((found if bias is None else found - bias).to(dtype))
    return torch.cat(parts).T.contiguous()


def _dequantize(model: Any, quantized: Collection[str]) -> Any:
    for name in sorted(quantized):
        model.set_submodule(name, _plain(model.get_submodule(name), name, model.dtype))
    forget(model)
    return model


def was_dequantized(model: Any) -> bool:
    """Whether transformers has dequantized the weights while it loaded them: it notes how on the
    model, to write them as they were."""
    conversions = getattr(model, "_weight_conversions", None) or ()
    operations = (each for one in conversions for each in getattr(one, "operations", None) or ())
    return any(type(each).__name__.endswith("Dequantize") for each in operations)


def forget(model: Any) -> None:
    """Have a model whose weights are plain now be saved as one: transformers would write the layout
    that it has read."""
    for note in _NOTES:
        vars(model).pop(note, None)
    for config in (model.config, model.config.get_text_config()):
        if hasattr(config, "quantization_config"):
            del config.quantization_config


def _plain(layer: Any, name: str, dtype: torch.dtype) -> nn.Linear:
    if not hasattr(layer, "in_features"):
        raise NotImplementedError(f"{name} is quantized, and no linear layer")
    weight, bias = plain_weight(layer, dtype), getattr(layer, "bias", None)
    made = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    made.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().to(dtype), requires_grad=False)
    return made
