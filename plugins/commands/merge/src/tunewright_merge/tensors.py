"""Merging of safetensors, tensor by tensor: memory holds one new file, and one tensor of each
model."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tunewright import RecipeError, RunError
from tunewright_hf.models.native_weights import StoredTensors
from tunewright_hf.models.safety import check_weights
from tunewright_merge.methods import Settings, merged

_INDEX = "model.safetensors.index.json"


class Tensors:
    """The tensors of the models by name, checked to fit together. names: of the models, for errors.
    Raises RecipeError and RunError."""

    def __init__(self, folders: list[Path], names: list[str]) -> None:
        for folder in folders:
            check_weights(folder)
        self.models = [StoredTensors(folder) for folder in folders]
        first = set(self.models[0])
        for name, model in zip(names, self.models, strict=True):
            for tensor in sorted(first ^ set(model)):
                holder, where = (self.models[0], names[0]) if tensor in first else (model, name)
                if _is_tied_head(holder, tensor):
                    continue
                problem = f"has other tensors than {names[0]}: {tensor} is in {where} alone"
                hint = "tunewright export MODEL --to safetensors writes it in one form"
                raise RecipeError(problem, place=name, hint=hint)
        kept = set.intersection(*map(set, self.models))
        self.headers = {
            each: self.models[0].header(each) for each in self.models[0] if each in kept
        }
        for name, model in zip(names[1:], self.models[1:], strict=True):
            for tensor, header in self.headers.items():
                shape = model.header(tensor).shape
                if shape != header.shape:
                    problem = f"{tensor} has shape {list(shape)}, not {list(header.shape)}"
                    hint = "merge models of one architecture and one vocabulary"
                    raise RecipeError(f"differs from {names[0]}: {problem}", place=name, hint=hint)

    def dtype(self, name: str, dtype: torch.dtype | None) -> torch.dtype:
        """Dtype of a merged tensor. dtype: the one asked for; None: the first model's."""
        own = self.headers[name].dtype
        return dtype if dtype is not None and own.is_floating_point else own

    def size(self, name: str, dtype: torch.dtype | None) -> int:
        """Bytes of a merged tensor."""
        return self.headers[name].numel() * self.dtype(name, dtype).itemsize

    def shards(self, dtype: torch.dtype | None, largest: int) -> list[list[str]]:
        """Names by file: as many as fit into `largest` bytes, one at least."""
        found: list[list[str]] = [[]]
        filled = 0
        for name in self.headers:
            size = self.size(name, dtype)
            if found[-1] and filled + size > largest:
                found.append([])
                filled = 0
            found[-1].append(name)
            filled += size
        return found

    def merge(self, name: str, has_base: bool, settings: Settings) -> Tensor:
        """A merged tensor: in float32, or unchanged where it holds no floats. has_base: whether the
        first model is the base. Raises RunError if it is not finite."""
        stored = [model[name] for model in self.models]
        if not stored[0].is_floating_point():
            if any(not torch.equal(each, stored[0]) for each in stored[1:]):
                raise RunError("holds integers that differ between the models", place=name)
            return stored[0].clone()
        # copies: a stored tensor lies in the mapped file
        parts = [each.to(torch.float32, copy=True) for each in stored]
        base = parts.pop(0) if has_base else None
        result = merged(parts, base, settings, list(self.headers).index(name))
        if not bool(result.isfinite().all()):
            raise RunError("is not finite after the merge", place=name, hint="other weights")
        return result


def _is_tied_head(model: StoredTensors, name: str) -> bool:
    """Whether a tensor is an output head that equals the embedding: some programs store it."""
    if not name.endswith("lm_head.weight"):
        return False
    embeddings = (each for each in model if each.endswith("embed_tokens.weight"))
    return any(torch.equal(model[each], model[name]) for each in embeddings)


def write(
    tensors: Tensors,
    has_base: bool,
    settings: Settings,
    dtype: torch.dtype | None,
    shard_size: int,
    folder: Path,
    progress: Callable[[str, int, int], None],
) -> None:
    """Write the merged tensors as safetensors, in files of at most `shard_size` bytes. progress: as
    terminal.progress_bar gives it. Raises RunError."""
    shards, done = tensors.shards(dtype, shard_size), 0
    where: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        file = file if len(shards) > 1 else "model.safetensors"
        made = {}
        for name in names:
            result = tensors.merge(name, has_base, settings)
            made[name] = result.to(tensors.dtype(name, dtype)).contiguous()
            progress("merging", done := done + 1, len(tensors.headers))
        save_file(made, folder / file, {"format": "pt"})
        where |= dict.fromkeys(names, file)
    if len(shards) > 1:
        total = sum(tensors.size(name, dtype) for name in where)
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (folder / _INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
