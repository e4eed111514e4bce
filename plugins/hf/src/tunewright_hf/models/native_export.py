"""A model that was trained in a native class, written back in the layout of its publisher."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tunewright import RunError
from tunewright_hf.checkpoints.folder import write_folder
from tunewright_hf.models import native_loading, safety
from tunewright_hf.models.hub import read_json
from tunewright_hf.models.native import MARK, Native, Rule, fill, lookup, lookup_native
from tunewright_hf.models.native_weights import StoredTensors

__all__ = ["export_original"]

_HEAD, _EMBEDDINGS = "lm_head.weight", "model.embed_tokens.weight"
_TEXTS = ("*.json", "*.jinja", "*.model", "*.tiktoken", "*.txt", "*.py")
_OWN = ("config.json", "generation_config.json", "model.safetensors.index.json")


class OriginalTensors:
    """The stored tensors that a native model's are, by original name."""

    def __init__(self, saved: StoredTensors, rules: Sequence[Rule], place: str) -> None:
        """Raises RunError for a native tensor that has no place in the original layout."""
        self.saved, self.rules, self.place = saved, rules, place
        self.names: list[str] = []
        for name in saved:
            if (found := lookup_native(rules, name)) is None:
                raise RunError(f"{name} has no place in the original layout", place=place)
            rule, numbers, part = found
            if part == 0:
                self.names.append(fill(rule.original, numbers))

    def __getitem__(self, name: str) -> Tensor:
        rule, parts = self.parts(name)
        joined = rule.join(parts)
        again = rule.split(joined) if rule.constant else ()
        for native, part, expected in zip(rule.native, parts, again, strict=False):
            if native in rule.constant and not torch.equal(part, expected):
                problem = f"{native} has changed, and the original layout has no place for it"
                raise RunError(problem, place=self.place)
        return joined

    def parts(self, name: str) -> tuple[Rule, list[Tensor]]:
        """The rule of a stored tensor, and the native tensors that it became."""
        found = lookup(self.rules, name)
        assert found is not None, "the checkpoint was loaded by these rules"
        rule, numbers = found
        return rule, [self._native(fill(native, numbers)) for native in rule.native]

    def _native(self, name: str) -> Tensor:
        if name not in self.saved and name == _HEAD:  # tied, and stored once
            name = _EMBEDDINGS
        if name not in self.saved:
            raise RunError(f"holds no {name}", place=self.place)
        return self.saved[name]


def write_new(saved: Path, native: Native, to: Path) -> None:
    """Write the weights of a native folder in the original layout, where there is no checkpoint to
    go by: those of a tiny twin."""
    tensors = OriginalTensors(StoredTensors(saved), native.rules, str(saved))
    found = {name: tensors.parts(name) for name in tensors.names}
    joined = {name: rule.join(parts) for name, (rule, parts) in found.items()}
    _write_file(joined, to / "model.safetensors")


def export_original(
    saved: Path, original: Path, folder: Path, notify: Callable[[str, str], None]
) -> None:
    """Write the weights of `saved`, a native model's folder, under the names, in the files and with
    the config of `original`, the checkpoint that was trained.

    The checkpoint's other files (tokenizer, code) are copied as they are; no code is imported. What
    cannot be undone is told to `notify` (message, level). The folder appears whole or not at all.
    Raises RunError: the checkpoint is in transformers' layout already, tokens were added, what the
    original lacks was trained.
    """
    path = original / "config.json"
    native = native_loading.find(safety.sanitised(read_json(path))[0], path)
    if native is None:
        hint = "leave out layout=original"
        raise RunError("is in the layout of transformers already", place=str(original), hint=hint)
    _check_origin(saved, native)
    source = StoredTensors(original)
    tensors = OriginalTensors(StoredTensors(saved), native.rules, str(saved))

    def write(temporary: Path) -> None:
        told: list[str] = []
        dtypes = set()
        for file, names in source.files.items():
            made = {name: _original(name, tensors, source, told) for name in names}
            dtypes |= {each.dtype for each in made.values() if each.is_floating_point()}
            _write_file(made, temporary / file)
        _copy(original, saved, temporary, dtypes)
        for message in dict.fromkeys(told):
            notify(message, "warning")

    write_folder(folder, write)


def _check_origin(saved: Path, native: Native) -> None:
    """Raises RunError for a model that was made of another checkpoint."""
    origin = read_json(saved / "config.json").get(MARK)
    if not isinstance(origin, dict) or origin != native.config[MARK]:
        raise RunError("was not trained from this checkpoint's config.json", place=str(saved))


def _original(
    name: str, tensors: OriginalTensors, source: StoredTensors, told: list[str]
) -> Tensor:
    """The tensor to be stored under an original name."""
    rule, parts = tensors.parts(name)
    before = source[name]
    if not rule.native:  # left out when it was loaded
        return before
    dtype = parts[0].dtype
    if rule.folded:
        as_loaded = rule.split(before)
        if all(
            torch.equal(one.to(dtype), part) for one, part in zip(as_loaded, parts, strict=True)
        ):
            return before  # it was not trained
        told.append(_said_of_folded(name, parts[0]))
    made = tensors[name]
    if made.shape != before.shape:
        problem = f"{name} is {list(made.shape)}, and {list(before.shape)} in the checkpoint"
        hint = "a model whose vocabulary has grown is exported in transformers' layout alone"
        raise RunError(problem, place=tensors.place, hint=hint)
    return made


def _said_of_folded(name: str, tensor: Tensor) -> str:
    norms = tensor.float().norm(dim=1)
    return (
        f"{name} was trained with the normalisation folded into it, and its rows now have norms "
        f"from {norms.min():.4g} to {norms.max():.4g}: the original code normalises them again, so "
        "its logits differ by these factors from those of the trained model"
    )


def _write_file(tensors: Mapping[str, Tensor], path: Path) -> None:
    # copies: tensors of a mapped file share their memory
    copies = {
        name: each.clone(memory_format=torch.contiguous_format) for name, each in tensors.items()
    }
    save_file(copies, path, {"format": "pt"})


def _copy(original: Path, saved: Path, folder: Path, dtypes: set[torch.dtype]) -> None:
    """The files beside the weights: the checkpoint's own, generation settings of the result."""
    for pattern in _TEXTS:
        for path in original.glob(pattern):
            if path.name not in _OWN and path.is_file():
                shutil.copyfile(path, folder / path.name)
    config: dict[str, Any] = read_json(original / "config.json")
    key = "dtype" if "dtype" in config else "torch_dtype"
    names = {str(dtype).removeprefix("torch.") for dtype in dtypes}
    if len(names) == 1 and config.get(key) not in (None, *names):
        config[key] = names.pop()
        (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    else:
        shutil.copyfile(original / "config.json", folder / "config.json")
    if (saved / "generation_config.json").is_file():
        shutil.copyfile(saved / "generation_config.json", folder / "generation_config.json")
    index = original / "model.safetensors.index.json"
    if not (folder / "model.safetensors").is_file():
        found = read_json(index)
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        found["metadata"] = {"total_size": size}
        (folder / index.name).write_text(json.dumps(found, indent=2), encoding="utf-8")
