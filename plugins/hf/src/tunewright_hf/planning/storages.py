"""Live storages: the bytes that tensors hold while a model is built and trained.

The same counter watches a real run and a planned one, so that the two can be compared.
"""

import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

__all__ = ["PARTS", "Segment", "StorageCounter"]

#: parts of memory, in the order in which they are shown
PARTS = ("weights", "gradients", "optimizer", "activations", "logits")

_aten = torch.ops.aten
_CPU_ATTENTION = _aten._scaled_dot_product_flash_attention_for_cpu
_CPU_ATTENTION_BACKWARD = _aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass
class Segment:
    """The most that was alive at once while a part of a step ran."""

    peak: int = 0  # bytes
    parts: dict[str, int] = field(default_factory=dict)  # part → bytes at that moment


class StorageCounter(TorchDispatchMode):
    """Counts storages from the operation that makes them until nothing refers to them.

    Memory that an operation takes and frees inside itself is not seen. `part` is that of new
    storages; those of tensors whose last dimension is the vocabulary are logits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.part = "weights"
        self.vocab = 0  # 0: nothing counts as logits
        self.bytes: Counter[str] = Counter()  # by part, alive now
        self.flops = 0  # of matrix products and attention since it was set to 0
        self.segments: dict[Any, Segment] = {}
        self._sizes: dict[int, tuple[int, str]] = {}  # storage → bytes, part
        self._segment: Segment | None = None

    @property
    def total(self) -> int:
        """Bytes that are alive now."""
        return sum(self.bytes.values())

    def enter(self, key: Any) -> None:
        """Count the peak of what follows under this key, until the next call; None: nowhere."""
        self._segment = None if key is None else self.segments.setdefault(key, Segment())
        self._note()

    def move(self, tensor: Tensor, part: str) -> None:
        """Count a tensor's storage as another part."""
        key = tensor.untyped_storage()._cdata
        if key in self._sizes:
            size, before = self._sizes[key]
            self._sizes[key] = size, part
            self.bytes[before] -= size
            self.bytes[part] += size

    def see(self, tensor: Tensor) -> None:
        """Count a tensor's storage, if it is not counted yet."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes:
            return
        part = self.part
        if part == "activations" and tensor.dim() > 1 and tensor.shape[-1] == self.vocab:
            part = "logits"
        self._sizes[key] = storage.nbytes(), part
        self.bytes[part] += storage.nbytes()
        self._note()
        weakref.finalize(storage, self._freed, key)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        made = self.call(function, args, kwargs)
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self.see(tensor)
        self.flops += _flops(function, args, kwargs, made)
        return made

    def call(self, function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run the operation."""
        return function(*args, **kwargs)

    def _note(self) -> None:
        segment = self._segment
        if segment is not None and (total := self.total) > segment.peak:
            segment.peak, segment.parts = total, dict(self.bytes)

    def _freed(self, key: int) -> None:
        size, part = self._sizes.pop(key)
        self.bytes[part] -= size


def _flops(function: Any, args: Any, kwargs: dict[str, Any], made: Any) -> int:
    """Floating-point operations of a matrix product or of attention; 0 for all others."""
    packet = function.overloadpacket
    if packet is _CPU_ATTENTION:
        return int(sdpa_flop_count(*(each.shape for each in args[:3])))
    if packet is _CPU_ATTENTION_BACKWARD:  # its first argument is the output's gradient
        shapes = [each.shape for each in args[:4]]
        return int(sdpa_backward_flop_count(*shapes))
    counted: Callable[..., int] | None = flop_registry.get(packet)
    return int(counted(*args, **kwargs, out_val=made)) if counted else 0
