"""Places for activations: CPU memory, or files."""

import contextlib
import shutil
import weakref
from itertools import count
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tunewright import RunError


class Handle(Protocol):
    """A tensor that was put away. Its place is free when the handle is garbage."""

    def get(self) -> Tensor:
        """The tensor, with its strides, on its device."""


class Store(Protocol):
    def put(self, tensor: Tensor) -> Handle:
        """Copy a tensor. Raises RunError where there is no room."""

    def close(self) -> None:
        """Free all that is left."""


class InMemory:
    def __init__(self, tensor: Tensor, pin: bool) -> None:
        self._device = tensor.device
        # keeps the strides of a tensor without gaps: results are then equal to the bit
        self._copy = torch.empty_like(tensor, device="cpu", pin_memory=pin)
        self._copy.copy_(tensor)

    def get(self) -> Tensor:
        return self._copy.to(self._device, copy=True)


class CpuStore:
    """CPU memory. pin: page-locked."""

    def __init__(self, pin: bool) -> None:
        self.pin = pin

    def put(self, tensor: Tensor) -> InMemory:
        return InMemory(tensor, self.pin)

    def close(self) -> None:
        """Nothing is left when the handles are gone."""


class OnDisk:
    def __init__(self, tensor: Tensor, path: Path) -> None:
        self._path, self._device = path, tensor.device
        # safetensors holds contiguous tensors: dimensions are stored by falling stride
        self._order = sorted(range(tensor.ndim), key=lambda place: -tensor.stride(place))
        save_file({"tensor": tensor.detach().permute(self._order).contiguous()}, path)
        weakref.finalize(self, path.unlink, missing_ok=True)

    def get(self) -> Tensor:
        stored = load_file(self._path, device=str(self._device))["tensor"]
        inverse = [self._order.index(place) for place in range(stored.ndim)]
        return stored.permute(inverse)


class DiskStore:
    """Files in a folder of this process, which is emptied now and removed at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._numbers = folder, count()
        shutil.rmtree(folder, ignore_errors=True)  # left by a run that was killed
        folder.mkdir(parents=True)

    def put(self, tensor: Tensor) -> OnDisk:
        path = self.folder / f"{next(self._numbers)}.safetensors"
        try:
            return OnDisk(tensor, path)
        except Exception as error:  # safetensors has a class of its own for a full disk
            raise RunError(
                f"an activation cannot be written: {type(error).__name__}: {error}",
                place=str(self.folder),
                hint="make room, or set offload_to: cpu",
            ) from error

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # other ranks still have theirs, or have removed it
            self.folder.parent.rmdir()
