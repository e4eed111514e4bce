"""The layout of GPTQ's checkpoints, format gptq (v1)."""

from pathlib import Path

import torch
from torch import Tensor

from tunewright_hf.models.packing import pack, quantize_folder, rounded


def write(folder: Path, bits: int, group_size: int) -> None:
    """Quantize the plain checkpoint in `folder` by rounding, without GPTQ's calibration."""
    config = {
        "quant_method": "gptq",
        "bits": bits,
        "group_size": group_size,
        "desc_act": False,
        "sym": False,
        "checkpoint_format": "gptq",
        "meta": {"quantizer": ["tunewright:0.1"]},
    }
    quantize_folder(folder, lambda weight: tensors(weight, bits, group_size), config)


def tensors(weight: Tensor, bits: int, group_size: int) -> dict[str, Tensor]:
    """qweight (in * bits / 32, out), qzeros (groups, out * bits / 32), scales (groups, out) and
    g_idx (in,), of a weight (out, in). A zero point is stored less one."""
    codes, scales, zeros = rounded(weight, bits, group_size)
    return {
        "qweight": pack(codes.T, bits),
        "qzeros": pack((zeros - 1) & (2**bits - 1), bits).T,
        "scales": scales.T.half(),
        "g_idx": torch.arange(weight.shape[1], dtype=torch.int32) // group_size,
    }
