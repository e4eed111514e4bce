"""Fake tensors: a model and its training step without storage for floating-point numbers.

Integers (token ids, labels, masks, positions) stay real, so that everything that depends on their
values is decided as in training: what is masked, which rows are packed, which positions are scored.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves

from tunewright_hf.losses import chunked_cross_entropy
from tunewright_hf.losses.causal_lm import replaced
from tunewright_hf.planning.storages import StorageCounter
from tunewright_hf.training import reference

__all__ = ["FakeStorageCounter", "without_storage"]

_aten = torch.ops.aten
#: questions about values, which fake tensors do not have: comparisons are answered with yes
_COMPARISONS = frozenset(
    {_aten.allclose.default, _aten.equal.default, _aten.is_nonzero.default, _aten.item.default}
)
#: initialisation, which takes time and changes no size
_INITS = tuple(name for name in dir(nn.init) if name.endswith("_") and not name.startswith("_"))


class FakeStorageCounter(StorageCounter):
    """Makes fake tensors of floating-point numbers, and counts them as if they had storage.

    A number that is read out of a fake tensor (a loss, a norm) is 1, a truth value true.
    """

    def __init__(self) -> None:
        super().__init__()
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)

    def call(self, function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        if any(isinstance(each, FakeTensor) for each in tensors):
            if function is _aten.index.Tensor:  # how many a mask chooses is known: it is real
                args = args[0], _without_masks(args[1])
            if function is _aten._local_scalar_dense.default:
                return _one(args[0].dtype)
            if function in _COMPARISONS:
                return True
        elif tensors or not (kwargs.get("dtype") or torch.get_default_dtype()).is_floating_point:
            return function(*args, **kwargs)
        with self._fake:
            return function(*args, **kwargs)


def _without_masks(indices: Any) -> list[Any]:
    """Indices with the places that real masks choose in place of the masks."""
    found: list[Any] = []
    for each in indices:
        is_mask = each is not None and each.dtype == torch.bool and not isinstance(each, FakeTensor)
        found += each.nonzero(as_tuple=True) if is_mask else [each]
    return found


def _one(dtype: torch.dtype) -> bool | int | float:
    if dtype == torch.bool:
        return True
    return 1.0 if dtype.is_floating_point else 1


@contextmanager
def without_storage(counter: FakeStorageCounter, on_gpu: bool) -> Iterator[None]:
    """Inside the context models are built, and trained, on fake tensors of the CPU. No other thread
    may build one meanwhile.

    on_gpu: the loss takes chunks of the size that it takes on GPUs.
    """
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        # copy.deepcopy asks a parameter for it, and goes on without
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
        if on_gpu:
            chunk = chunked_cross_entropy.GPU_CHUNK
            stack.enter_context(replaced(chunked_cross_entropy, "CPU_CHUNK", chunk))
        stack.enter_context(replaced(nn.Module, "_apply", _apply))
        # scores of a reference are not kept
        stack.enter_context(replaced(reference, "write_folder", lambda *_: None))
        for name in _INITS:
            stack.enter_context(replaced(nn.init, name, _unchanged))
        stack.enter_context(counter)
        yield


def _unchanged(tensor: Tensor, *_: Any, **__: Any) -> Tensor:
    return tensor


def _apply(module: nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
    """nn.Module._apply, which cannot swap fake parameters (torch 2.14)."""
    for child in module.children() if recurse else ():
        child._apply(change)
    for parameter in module._parameters.values():
        if parameter is not None:
            with torch.no_grad():
                parameter.data = change(parameter).detach()
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = change(buffer)
    return module
