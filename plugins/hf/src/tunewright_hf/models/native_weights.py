"""Tensors of a checkpoint, each read when it is indexed: by their own names, or by those of the
native class."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from tunewright import RunError
from tunewright_hf.models.hub import read_json
from tunewright_hf.models.native import Rule, fill, lookup

__all__ = ["NativeWeights", "StoredTensors"]


class StoredTensors(Mapping[str, Tensor]):
    """The tensors of a folder's safetensors by name. Indexing reads one, which lies in the mapped
    file: to be kept, it is copied."""

    def __init__(self, folder: Path) -> None:
        single = folder / "model.safetensors"
        index = folder / "model.safetensors.index.json"
        names = {single.name} if single.is_file() else set(read_json(index)["weight_map"].values())
        #: name of each file → the names of its tensors
        self.files: dict[str, list[str]] = {}
        self._file: dict[str, Any] = {}
        for name in sorted(names):
            file = safe_open(folder / name, framework="pt")
            self.files[name] = list(file.keys())
            self._file |= dict.fromkeys(self.files[name], file)

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._file[name].get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._file)

    def __len__(self) -> int:
        return len(self._file)

    def header(self, name: str) -> Tensor:
        """A tensor without storage, of the stored one's shape and dtype."""
        found = self._file[name].get_slice(name)
        empty = found[:0] if found.get_shape() else self[name]
        return torch.empty(found.get_shape(), dtype=empty.dtype, device="meta")


class LazyTensor:
    """One native tensor. `lazy[...]` reads and converts the stored one, as a slice of safetensors
    does; nothing is kept."""

    def __init__(self, stored: StoredTensors, name: str, rule: Rule, part: int) -> None:
        self._stored, self._name, self._rule, self._part = stored, name, rule, part

    def __getitem__(self, index: Any) -> Tensor:
        parts = self._rule.split(self._stored[self._name])
        return parts[self._part][index].clone(memory_format=torch.contiguous_format)

    def get_shape(self) -> list[int]:
        return list(self._meta().shape)

    @property
    def dtype(self) -> torch.dtype:
        return self._meta().dtype

    def is_floating_point(self) -> bool:
        return self.dtype.is_floating_point

    def _meta(self) -> Tensor:
        return self._rule.split(self._stored.header(self._name))[self._part]


class NativeWeights(Mapping[str, LazyTensor]):
    """The native tensors of a checkpoint in its original layout, by native name.

    It may stand where transformers takes a `state_dict`. Memory holds one stored tensor at a time
    for each thread that reads. A tensor's dtype is the stored one, or float32 where a conversion
    computes in it: the reader casts.
    """

    def __init__(self, folder: Path, rules: Sequence[Rule]) -> None:
        """Raises RunError for a stored tensor that no rule names."""
        stored = StoredTensors(folder)
        self._lazy: dict[str, LazyTensor] = {}
        for name in stored:
            if (found := lookup(rules, name)) is None:
                problem = f"holds {name}, which its architecture has no place for"
                hint = "--trust-remote-code runs the checkpoint's own code"
                raise RunError(problem, place=str(folder), hint=hint)
            rule, numbers = found
            for part, native in enumerate(rule.native):
                self._lazy[fill(native, numbers)] = LazyTensor(stored, name, rule, part)

    def __getitem__(self, name: str) -> LazyTensor:
        return self._lazy[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._lazy)

    def __len__(self) -> int:
        return len(self._lazy)
