"""LoRA in a model whose layers are split: each of its matrices is split as the layer needs it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.distributed.tensor import DTensor
from transformers.distributed.tensor_parallel import apply_tensor_parallelism
from transformers.integrations.tensor_parallel import replace_layer_number_by_wildcard

from tunewright import RecipeError
from tunewright_hf.models.modules import base_model

__all__ = ["split_adapter", "whole_shapes"]

#: style of a layer → the matrix that is split likewise; the other one is whole on each rank
_SPLIT = {"colwise": "lora_B", "rowwise": "lora_A"}
#: styles of layers whose inputs and outputs are whole
_WHOLE = (None, "colwise_gather_output", "colwise_rep", "embedding_rowwise")


@contextmanager
def whole_shapes(model: Any) -> Iterator[None]:
    """Within, linear layers have weights of their whole shapes, without memory: PEFT would give the
    adapter the shapes of a rank's parts, and other initial values than one process."""
    split = [
        (layer, layer.weight)
        for layer in model.modules()
        if isinstance(layer, nn.Linear) and isinstance(layer.weight, DTensor)
    ]
    for layer, weight in split:
        number = torch.zeros((), dtype=weight.dtype, device=weight.device)
        layer.weight = nn.Parameter(number.expand(weight.shape), requires_grad=False)
    try:
        yield
    finally:
        for layer, weight in split:
            layer.weight = weight.requires_grad_(False)


def split_adapter(model: Any) -> None:
    """Split the adapter's matrices, which are whole and the same on all ranks. PEFT's own way needs
    attributes of modules that transformers no longer sets.

    Raises RecipeError for an adapted layer that transformers splits in another way.
    """
    base = base_model(model)
    for name, layer in base.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        style = base.tp_plan.get(replace_layer_number_by_wildcard(name))
        if style in _WHOLE:
            continue
        if style not in _SPLIT:
            raise RecipeError(
                f"{name} is split as {style}, which LoRA cannot follow",
                place="accelerators",
                hint="leave it out of adapter.targets, or take accelerator fsdp",
            )
        part = f"{name}.{_SPLIT[style]}.default"
        # a parameter is split before its module's forward
        plan = {f"{part}.weight": style, part: style}
        apply_tensor_parallelism(base, layer.get_base_layer().weight.device_mesh, plan)
