"""torchao's configs and layers."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchao import quantization
from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig
from transformers import TorchAoConfig

from tunewright.types import LoadedModel
from tunewright_hf.models.modules import linear_body
from tunewright_hf.models.quantized_linear import through

if TYPE_CHECKING:
    from tunewright_torchao import TorchAo


class StraightThroughLinear(nn.Linear):
    """A layer whose kernel rounds its input, or has no backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        return through(x, self, super().forward)


def config(options: "TorchAo.Options") -> TorchAoConfig:
    """transformers' config for weights that are quantized while they are loaded."""
    if options.type == "int4":
        return TorchAoConfig(
            quantization.Int4WeightOnlyConfig(
                group_size=options.group_size, int4_packing_format="tile_packed_to_4d"
            )
        )
    kinds = {
        "int8": quantization.Int8WeightOnlyConfig,
        "int8_dynamic": quantization.Int8DynamicActivationInt8WeightConfig,
        "float8": quantization.Float8WeightOnlyConfig,
    }
    return TorchAoConfig(kinds[options.type]())


def give_gradients(loaded: LoadedModel) -> None:
    """Give quantized layers a gradient of their input. torchao's kernels for rounded activations
    have none, and say nothing: what lies below them would be trained wrongly."""
    for name in loaded.quantized:
        loaded.model.get_submodule(name).__class__ = StraightThroughLinear


def prepare(loaded: LoadedModel, options: "TorchAo.Options") -> None:
    """Have linear layers, except heads, round their weights, and with int8_dynamic their input, in
    every forward pass."""
    names = set(linear_body(loaded))
    weights: dict[str, Any] = {"granularity": "per_channel", "is_symmetric": True}
    if options.type == "int4":
        weights = {"group_size": options.group_size, "is_symmetric": True}
    dtype = torch.int4 if options.type == "int4" else torch.int8
    activations = None
    if options.type == "int8_dynamic":
        activations = IntxFakeQuantizeConfig(torch.int8, "per_token", is_symmetric=False)
    quantization.quantize_(
        loaded.model,
        QATConfig(
            activation_config=activations,
            weight_config=IntxFakeQuantizeConfig(dtype, **weights),
            step="prepare",
        ),
        filter_fn=lambda module, name: name in names,
    )
