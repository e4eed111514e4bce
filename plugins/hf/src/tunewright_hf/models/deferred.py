"""Weights that are loaded after the model is sharded, so that no rank holds all of them.

The model is built without storage on every rank. When it is sharded, rank 0 loads the same model on
the CPU, where weights stay in the checkpoint's files until they are read (safetensors are mapped
into memory), and hands out tensor by tensor; each rank keeps its shard.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tunewright import RunError, TunewrightError
from tunewright.errors import Stopped
from tunewright.types import AdapterRequest, LoadedModel
from tunewright_hf.distributed.meeting import stopping_alone

__all__ = ["DeferredWeights", "adapted_later", "fill", "on_meta"]


@dataclass(frozen=True)
class DeferredWeights:
    """The way to the weights of a model on the meta device. `fit` tries the model on a few tokens
    when they are there."""

    device: torch.device  # that the model trains on
    load: Callable[[], Any]  # () → the same model with weights, on the CPU


def on_meta(model: Any) -> dict[str, torch.dtype]:
    """The dtypes of parameters and buffers without storage, by name; shared ones once."""
    return {name: tensor.dtype for name, tensor in _tensors(model) if tensor.is_meta}


def unnamed_on_meta(model: Any) -> str | None:
    """Name of a tensor without storage that is neither parameter nor buffer; None if there is
    none."""
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, Tensor) and value.is_meta:
                return f"{name}.{key}".lstrip(".")
    return None


def adapted_later(run: Any, before: AdapterRequest, loaded: LoadedModel) -> None:
    """Have `loaded.deferred` apply the adapter too, as it was applied to the model on meta.

    before: a copy of the request, with a copy of its LoadedModel, as they were before.
    """
    deferred = before.loaded.deferred

    def load() -> Any:
        plain = replace(before.loaded, model=deferred.load(), deferred=None)
        return run.call("adapter", "apply_adapter", replace(before, loaded=plain)).model

    loaded.deferred = DeferredWeights(deferred.device, load)


def fill(
    loaded: LoadedModel, missing: dict[str, torch.dtype], take: Callable[[Tensor, Tensor], None]
) -> None:
    """Give the model's parameters and buffers that are missing their values.

    missing: what `on_meta` returned before the model was sharded. take: called on all ranks for one
    tensor after the other, with the model's tensor, and the whole one on the CPU, whose values
    count on rank 0 only. Raises RunError on all ranks where rank 0 cannot load the weights, Stopped
    where it was asked to stop meanwhile.
    """
    weights, error = {}, None
    if torch.distributed.get_rank() == 0:
        try:
            with stopping_alone():
                weights = dict(_tensors(loaded.deferred.load(), remove_duplicate=False))
        except TunewrightError as caught:
            error = caught
    code = float(error is not None) + float(isinstance(error, Stopped))
    failed = torch.tensor(code, device=loaded.deferred.device)
    torch.distributed.all_reduce(failed)
    if error is not None:
        raise error
    if failed:
        told = RunError("rank 0 could not load the weights", place="model")
        raise told if failed == 1 else Stopped("stopped as rank 0 was asked")
    for name, tensor in _tensors(loaded.model):
        if name in missing:
            whole = weights[name].detach() if weights else None
            take(tensor, torch.empty(tensor.shape, dtype=missing[name]) if whole is None else whole)
    loaded.deferred = None


def _tensors(model: Any, remove_duplicate: bool = True) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters(remove_duplicate=remove_duplicate)
    yield from model.named_buffers(remove_duplicate=remove_duplicate)
