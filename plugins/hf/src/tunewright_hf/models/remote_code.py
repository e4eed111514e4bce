"""Models whose classes are not transformers' own: what transformers 5 leaves undone.

transformers 5 builds every model on the meta device, and allocates uninitialised memory for buffers
that are in no file. Its own classes recompute them. Code written for transformers 4 computed them
in `__init__`, and would use uninitialised memory: wrong logits, or NaN, without an error.
"""

from typing import Any

import torch
from torch import nn

from tunewright import RunError
from tunewright.types import LoadRequest
from tunewright_hf.models.errors import one_line

HINT = (
    "the checkpoint's own code does not run right with this version of transformers; use a version "
    "of the model that transformers knows itself, without --trust-remote-code"
)


def is_foreign(model: Any) -> bool:
    """Whether the model's class is not one of transformers' own."""
    return type(model).__module__.partition(".")[0] != "transformers"


def restore_buffers(model: Any, request: LoadRequest) -> None:
    """Restore buffers and tensors that `__init__` computes and no file holds.

    Builds the class a second time, with buffers on the CPU and parameters on the meta device.
    Raises RunError if the code does not support it.
    """
    from accelerate import init_empty_weights

    from tunewright_hf.models.devices import seeded

    with (
        one_line("its own code cannot be built", request.model, HINT),
        seeded(request.seed, torch.device("cpu")),
        init_empty_weights(include_buffers=False),
    ):
        fresh = type(model)._from_config(model.config, dtype=model.dtype)
    modules = dict(fresh.named_modules())
    for name, module in model.named_modules():
        if (same := modules.get(name)) is not None:
            _restore(module, same, name, request.model)


def _restore(module: nn.Module, fresh: nn.Module, name: str, place: str) -> None:
    for key in module._non_persistent_buffers_set:
        own, computed = module._buffers.get(key), fresh._buffers.get(key)
        if own is not None and computed is not None and not computed.is_meta:
            module._buffers[key] = computed.to(own.device)
    for key, value in vars(
        module
    ).items():  # tensors that are not buffers have stayed on the meta device
        if isinstance(value, torch.Tensor) and value.is_meta:
            computed = vars(fresh).get(key)
            if not isinstance(computed, torch.Tensor) or computed.is_meta:
                at = f"{name}.{key}".lstrip(".")
                raise RunError(f"{at} has no value after loading", place=place, hint=HINT)
            setattr(module, key, computed)
