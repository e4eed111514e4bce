"""The layout of DeepSeek's float8 checkpoints."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from tunewright_hf.models.packing import quantize_folder

_BLOCK = 128
_LARGEST = 448.0  # of float8_e4m3fn


CONFIG = {
    "quant_method": "fp8",
    "activation_scheme": "dynamic",
    "weight_block_size": [_BLOCK, _BLOCK],
    "modules_to_not_convert": None,
}


def write(folder: Path) -> None:
    """Quantize the plain checkpoint in `folder` to float8."""
    quantize_folder(folder, tensors, CONFIG)


def tensors(weight: Tensor) -> dict[str, Tensor]:
    """weight (out, in) in float8 and weight_scale_inv (out / 128, in / 128): their product is the
    plain weight."""
    rows, columns = weight.shape
    whole = pad(weight, (0, -columns % _BLOCK, 0, -rows % _BLOCK))
    blocks = whole.unflatten(1, (-1, _BLOCK)).unflatten(
        0, (-1, _BLOCK)
    )  # (rows, 128, columns, 128)
    scales = blocks.abs().amax((1, 3)).clamp(min=1e-12) / _LARGEST
    spread = scales.repeat_interleave(_BLOCK, 0).repeat_interleave(_BLOCK, 1)[:rows, :columns]
    return {"weight": (weight / spread).to(torch.float8_e4m3fn), "weight_scale_inv": scales}
