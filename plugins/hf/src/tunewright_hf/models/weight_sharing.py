"""Several models in memory that are one model with different adapters: the base is held once."""

from typing import Any

import torch

from tunewright_hf.distributed.sharding import is_sharded

__all__ = ["share"]


def share(other: Any, model: Any) -> int:
    """Let `other` use the parameters of `model` that are equal bit for bit and that neither trains:
    the bytes that this saves. What is trained in one of them, adapters and heads, stays its own.

    Models under the same adapter plugin, of the same checkpoint, have all but those in common; so
    has a model that is frozen in part. Weights in 8 bits are left alone: their layers keep them in
    a state of their own. To be called when both have the number format that they keep.
    """
    if is_sharded(model):
        return 0
    candidates = (
        (name, each) for name, each in model.named_parameters() if each.dtype != torch.int8
    )
    frozen = {_plain(name): each for name, each in candidates if not each.requires_grad}
    saved = 0
    for name, parameter in other.named_parameters():
        twin = frozen.get(_plain(name))
        if (
            twin is None
            or parameter.requires_grad
            or (twin.dtype, twin.shape) != (parameter.dtype, parameter.shape)
        ):
            continue
        if (
            twin.device == parameter.device
            and twin.data_ptr() != parameter.data_ptr()
            and torch.equal(twin, parameter)
        ):
            parameter.data = twin.data
            saved += twin.nbytes
    return saved


def _plain(name: str) -> str:
    """A parameter's name without what PEFT puts round it."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")
