"""Share the base weights of several models in memory, such as policy and reference."""

from typing import Any

import torch

from tunewright_hf.distributed.sharding import is_sharded

__all__ = ["share"]


def share(other: Any, model: Any) -> int:
    """Let `other` use the parameters of `model` that are bit-identical and trained in neither.
    Returns the bytes saved. Trained parameters, adapters and heads stay separate.

    Models of the same checkpoint under the same adapter plugin share all but those; so does a
    partly frozen model. 8-bit weights are not shared: their layers keep them in a separate state.
    Call it when both models have their final dtypes.
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
            and not twin.is_set_to(parameter)
            and torch.equal(twin, parameter)
        ):
            parameter.data = twin.data
            saved += twin.nbytes
    return saved


def _plain(name: str) -> str:
    """A parameter's name without PEFT's prefixes."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")
