"""Batches on their way from a data-loader worker to the main process.

Small tensors go as arrays: each tensor would take a file of shared memory, whose descriptor the
main process asks for. Large ones go through shared memory that a worker uses again: the system
clears each page of new memory, which takes about half as long as decoding the images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from tunewright import TunewrightError

__all__ = ["PREFETCH", "Guarded", "received"]

PREFETCH = 2  # batches that a worker makes ahead
_SMALL = 2**16  # bytes
_OF_NUMPY = (torch.int64, torch.int32, torch.float32, torch.bool)


class SharedBuffers:
    """Shared memory for the large tensors of a worker's batches.

    A batch's buffers are written again PREFETCH + 1 batches later. The worker is asked for that
    batch when the main process takes the one after this, and by then it has copied this one.
    """

    def __init__(self) -> None:
        self._sets: list[list[Tensor]] = [[] for _ in range(PREFETCH + 1)]
        self._batch = self._used = 0

    def next_batch(self) -> None:
        self._batch, self._used = (self._batch + 1) % len(self._sets), 0

    def copy(self, tensor: Tensor) -> Tensor:
        """A copy of the tensor in shared memory."""
        buffers, at = self._sets[self._batch], self._used
        self._used += 1
        if at == len(buffers):
            buffers.append(torch.empty(0, dtype=torch.uint8))
        if buffers[at].nbytes < tensor.nbytes:
            buffers[at] = torch.empty(tensor.nbytes, dtype=torch.uint8).share_memory_()
        return buffers[at][: tensor.nbytes].view(tensor.dtype).view(tensor.shape).copy_(tensor)


@dataclass
class Guarded:
    """A collator whose errors are values: a worker would wrap them in a traceback. In a worker, the
    batch is made ready for `received`."""

    collate: Callable[[Sequence[Any]], Any]
    buffers: SharedBuffers = field(default_factory=SharedBuffers)

    def __call__(self, rows: Sequence[Any]) -> Any:
        try:
            batch = self.collate(rows)
        except TunewrightError as error:
            return error
        if get_worker_info() is None:
            return batch
        self.buffers.next_batch()
        return self._sent(batch)

    def _sent(self, found: Any) -> Any:
        if isinstance(found, dict):
            return {name: self._sent(each) for name, each in found.items()}
        if not isinstance(found, Tensor):
            return found
        if found.nbytes > _SMALL:
            return self.buffers.copy(found)
        return found.numpy() if found.dtype in _OF_NUMPY else found


def received(found: Any) -> Any:
    """A batch as the collator made it, in the main process. To be called before the next batch is
    taken from the loader."""
    if isinstance(found, dict):
        return {name: received(each) for name, each in found.items()}
    if isinstance(found, np.ndarray):
        return torch.from_numpy(found)
    # pinned tensors are copies already
    return found.clone() if isinstance(found, Tensor) and found.is_shared() else found
