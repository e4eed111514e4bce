"""Bytes that tensors take, wherever a library keeps them."""

from collections.abc import Iterator, Mapping
from typing import Any


def tensors_in(value: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """The plain tensors that a value consists of, each once: those in dicts, lists and attributes,
    and those that a tensor subclass is made of. Modules in it are not entered."""
    import torch

    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    parts: list[Any] = []
    if isinstance(value, torch.Tensor):
        flatten = getattr(value, "__tensor_flatten__", None)
        if flatten is not None:
            parts = [getattr(value, name) for name in flatten()[0]]
        else:
            yield value
            parts = list(vars(value).values())  # bitsandbytes keeps scales there
    elif isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, list | tuple):
        parts = list(value)
    elif hasattr(value, "__dict__") and not isinstance(value, torch.nn.Module | type):
        parts = list(vars(value).values())
    for part in parts:
        yield from tensors_in(part, seen)


def bytes_in(value: Any) -> int:
    """Bytes of the tensors in a value, memory that several views name once.

    Single numbers, such as a count of steps, do not count.
    """
    found = {
        tensor.data_ptr(): tensor.numel() * tensor.element_size()
        for tensor in tensors_in(value)
        if tensor.numel() > 1
    }
    return sum(found.values())


def own_tensors(layer: Any) -> list[Any]:
    """The tensors of a layer's weight, in parameters, buffers and attributes; the bias is not among
    them."""
    own = {**vars(layer), **layer._parameters, **layer._buffers}
    left_out = ("bias", "_parameters", "_buffers", "_modules")
    return list(tensors_in([value for name, value in own.items() if name not in left_out]))


def layer_bytes(layer: Any) -> int:
    """Bytes that a layer's weight takes, scales included."""
    return bytes_in(own_tensors(layer))
