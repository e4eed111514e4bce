"""Hooks on the tensors that a model's forward passes save for the backward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from tunewright_activation_offload.stores import Handle, Store


class Offload:
    """Saves tensors of at least `least` bytes in `store`, in forward passes that a gradient is
    computed of."""

    def __init__(self, store: Store, least: int) -> None:
        self.store, self.least = store, least
        self._hooks: saved_tensors_hooks | None = None  # while a forward pass runs

    @contextmanager
    def active(self, model: nn.Module) -> Iterator[None]:
        """Offload what forward passes of `model` save. It has no hooks of this kind afterwards."""
        hooks = [
            model.register_forward_pre_hook(self._begin),
            # also called after an exception
            model.register_forward_hook(self._end, always_call=True),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _begin(self, module: nn.Module, args: Any) -> None:
        if module.training and torch.is_grad_enabled():
            self._hooks = saved_tensors_hooks(self._pack, self._unpack)
            self._hooks.__enter__()

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._hooks is not None:
            self._hooks.__exit__()
            self._hooks = None

    def _pack(self, tensor: Tensor) -> Tensor | Handle:
        """Return the object that autograd keeps in place of the tensor."""
        if tensor.numel() * tensor.element_size() < self.least or _is_weight(tensor):
            return tensor
        return self.store.put(tensor)

    def _unpack(self, kept: Tensor | Handle) -> Tensor:
        return kept if isinstance(kept, Tensor) else kept.get()


def _is_weight(tensor: Tensor) -> bool:
    """Whether the tensor is a parameter, or a view of one, such as the transposed weight that a
    linear layer saves."""
    return isinstance(tensor, nn.Parameter) or isinstance(tensor._base, nn.Parameter)
