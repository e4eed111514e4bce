"""Checkpoints in the layouts of quantized ones, made by rounding to the nearest: exports, and tiny
ones for `model: tiny` and for tests."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tunewright import RunError
from tunewright_hf.models.errors import one_line
from tunewright_hf.models.family import ADAPTER_EXCLUDE
from tunewright_hf.models.modules import within

__all__ = ["pack", "quantize_checkpoint", "quantize_folder", "rounded"]


def quantize_folder(
    folder: Path, layer: Callable[[Tensor], dict[str, Tensor]], config: dict[str, Any]
) -> None:
    """Quantize the plain checkpoint in `folder` in its place, as quantize_checkpoint does. Experts
    stay as they are."""
    _quantize(folder, folder, layer, config)


def quantize_checkpoint(
    plain: Path,
    folder: Path,
    layer: Callable[[Tensor], dict[str, Tensor]],
    config: dict[str, Any],
) -> None:
    """Quantize the linear layers, except heads and routers, of a plain checkpoint, and write
    weights and config.json to `folder`, file by file.

    layer: a weight, (out, in) in float32, to its quantized tensors by name, such as qweight.
    config: the quantization_config. A key of it with the value None gets the names of the layers
    that are left alone. Raises RunError for a mixture of experts, and for a layer of a shape that
    does not fit.
    """
    for file in sorted(plain.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            experts = [name for name in opened.keys() if ".experts." in name]  # noqa: SIM118
        if experts:
            problem = f"has experts, which are not quantized here, such as {experts[0]}"
            raise RunError(problem, place=str(plain))
    _quantize(plain, folder, layer, config)


def _quantize(
    plain: Path,
    folder: Path,
    layer: Callable[[Tensor], dict[str, Tensor]],
    config: dict[str, Any],
) -> None:
    written = json.loads((plain / "config.json").read_text("utf-8"))
    chosen, left = _layers(plain, written)
    names, held = set(chosen), dict[str, str]()
    for file in sorted(plain.glob("*.safetensors")):
        tensors = load_file(file)
        for name in [each for each in chosen if f"{each}.weight" in tensors]:
            with one_line(f"{name} cannot be quantized", str(plain)):
                found = layer(tensors.pop(f"{name}.weight").float())
            tensors |= {f"{name}.{key}": value.contiguous() for key, value in found.items()}
            names.remove(name)
        save_file(tensors, folder / file.name, metadata={"format": "pt"})
        held |= dict.fromkeys(tensors, file.name)
    if names:
        problem = f"has no weight of {min(names)}, which its class has: it is not quantized here"
        raise RunError(problem, place=str(plain))
    if len(set(held.values())) > 1:
        text = json.dumps({"metadata": {}, "weight_map": held}, indent=1)
        (folder / "model.safetensors.index.json").write_text(text, "utf-8")
    filled = {key: left if value is None else value for key, value in config.items()}
    text = json.dumps(written | {"quantization_config": filled}, indent=1)
    (folder / "config.json").write_text(text, "utf-8")


def rounded(
    weight: Tensor, bits: int, group_size: int, *, symmetric: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes (out, in), scales and zero points (out, groups): weight = scale * (code - zero).

    Scales are rounded to float16 first, as they are stored.
    """
    grouped = weight.reshape(weight.shape[0], -1, group_size)  # (out, groups, group_size)
    top = 2**bits - 1
    if symmetric:
        scale = 2 * grouped.abs().amax(-1) / top
        zero = torch.full_like(scale, 2 ** (bits - 1))
    else:
        least, most = grouped.amin(-1).clamp(max=0), grouped.amax(-1).clamp(min=0)
        scale = (most - least) / top
        zero = (-least / scale).round().clamp(0, top)
    scale = scale.half().float()
    codes = (grouped / scale[..., None] + zero[..., None]).round().clamp(0, top)
    return codes.reshape(weight.shape).int(), scale, zero.int()


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes (n, columns) as a stream of bits down each column, in int32 (n * bits / 32, columns);
    the first code is in the lowest bits. n: a multiple of 32."""
    blocks = codes.long().reshape(-1, 32, codes.shape[1])
    words = torch.zeros(len(blocks), bits, codes.shape[1], dtype=torch.long)
    for index in range(32):
        word, shift = divmod(index * bits, 32)
        words[:, word] |= blocks[:, index] << shift
        if shift + bits > 32:
            words[:, word + 1] |= blocks[:, index] >> (32 - shift)
    words &= 2**32 - 1
    return torch.where(words >= 2**31, words - 2**32, words).int().reshape(-1, codes.shape[1])


def _layers(folder: Path, written: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Full names of the linear layers that are quantized, and of the others."""
    with torch.device("meta"):
        kind = getattr(transformers, written["architectures"][0])
        model = kind(transformers.AutoConfig.from_pretrained(folder))
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    chosen = [name for name in names if not within(name, ADAPTER_EXCLUDE)]
    return chosen, [name for name in names if name not in chosen]
