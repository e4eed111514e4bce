"""Checkpoints in the layout of their publishers, with random weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import native_originals as originals
import torch
from native_originals import Config, Tensors
from safetensors.torch import load_file, save_file
from torch import Tensor

from tunewright import registry
from tunewright.types import LoadedModel, LoadRequest
from tunewright_conformance.doubles import FakeRun
from tunewright_hf.models import native, tiny, twins
from tunewright_hf.models.native import MARK, Native
from tunewright_hf.models.native_export import write_new

Reference = Callable[[Tensors, Config, Tensor, Tensor], Tensor]

#: tiny twin → its family, and the architecture in plain torch
TWINS: dict[str, tuple[str, Reference]] = {
    "baichuan2": ("baichuan", originals.baichuan),
    "baichuan": ("baichuan", originals.baichuan),
    "internlm": ("internlm", originals.internlm),
    "internlm2": ("internlm", originals.internlm2),
    "chatglm3": ("chatglm", originals.chatglm),
    "chatglm4": ("chatglm", originals.chatglm),
    "qwen1": ("qwen", originals.qwen),
    "mimo": ("mimo", originals.mimo),
    "minicpm": ("minicpm", originals.minicpm),
    "deepseek_moe": ("deepseek", originals.deepseek),
    "telechat2": ("telechat", originals.telechat),
    "xverse": ("xverse", originals.xverse),
    "index": ("index", originals.index),
}


class Checkpoint(NamedTuple):
    """A checkpoint in its publisher's layout."""

    twin: str
    folder: Path
    config: Config
    tensors: Tensors
    native: Native

    def reference(self, tensors: Tensors, ids: Tensor, mask: Tensor) -> Tensor:
        return TWINS[self.twin][1](tensors, self.config, ids, mask)


def family(twin: str, **options: Any) -> Any:
    made: Any = registry.load(registry.find("family", TWINS[twin][0]))
    return made(made.Options(device="cpu", tiny_variant=twin, **options))


def template(twin: str) -> str:
    """Its template, which a tokenizer alone does not always tell."""
    return twins.specs(family(twin).package)[twin].template


def checkpoint(twin: str, folder: Path, **changes: Any) -> Checkpoint:
    """Write one with random weights; changes: of its config.json."""
    from transformers import AutoModelForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    made = family(twin)
    spec = twins.specs(made.package)[twin]
    tokenizer = tiny.tokenizer(spec)
    original = getattr(made.tiny_config(spec, tokenizer, 64, 2), MARK) | changes
    found = native.find(original)
    assert found is not None
    classes: Any = native_config(found)
    shapes = AutoModelForCausalLM.from_config(classes)
    shapes.save_pretrained(folder / "shapes")
    write_new(folder / "shapes", found, folder)
    for path in (folder / "shapes").iterdir():
        path.unlink()
    (folder / "shapes").rmdir()
    draw = torch.Generator().manual_seed(5)
    like = load_file(folder / "model.safetensors")
    tensors = {name: _random(name, each.shape, draw) for name, each in sorted(like.items())}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(original))
    tokenizer.save_pretrained(folder)
    return Checkpoint(twin, folder, original, tensors, found)


def native_config(found: Native) -> Any:
    from transformers import CONFIG_MAPPING

    return CONFIG_MAPPING[found.config["model_type"]].from_dict(found.config)


def _random(name: str, shape: torch.Size, draw: torch.Generator) -> Tensor:
    """Numbers with which all parts of a model matter: norms and biases are no ones and zeros."""
    numbers = torch.randn(shape, generator=draw)
    if len(shape) == 1:
        return 0.3 * numbers + (0.0 if name.endswith("bias") else 1.0)
    return numbers * 1.5 / shape[1] ** 0.5


def load(run: FakeRun, twin: str, folder: Path, **request: Any) -> LoadedModel:
    loaded: LoadedModel = family(twin).load_model(run, LoadRequest(str(folder), **request))
    return loaded


def batch(length: int, left: bool = False) -> tuple[Tensor, Tensor]:
    """Two rows of ids (2, T), the second half as long, and their mask."""
    draw = torch.Generator().manual_seed(length)
    ids = torch.randint(5, 500, (2, length), generator=draw)
    mask = torch.ones_like(ids)
    if left:
        mask[1, : length // 2] = 0
    else:
        mask[1, (length + 1) // 2 :] = 0
    return ids, mask
