"""The layout of AWQ's checkpoints, version GEMM."""

from pathlib import Path

import torch
from torch import Tensor

from tunewright_hf.models.packing import quantize_folder, rounded

_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]  # of the columns that share an int32


def write(folder: Path, group_size: int) -> None:
    """Quantize the plain checkpoint in `folder` by rounding, without AWQ's calibration."""
    config = {
        "quant_method": "awq",
        "bits": 4,
        "group_size": group_size,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": None,
    }
    quantize_folder(folder, lambda weight: tensors(weight, group_size), config)


def tensors(weight: Tensor, group_size: int) -> dict[str, Tensor]:
    """qweight (in, out / 8), qzeros (groups, out / 8) and scales (groups, out), of a weight (out,
    in)."""
    codes, scales, zeros = rounded(weight, 4, group_size)
    return {"qweight": _pack(codes.T), "qzeros": _pack(zeros.T), "scales": scales.T.half()}


def _pack(codes: Tensor) -> Tensor:
    eights = codes.reshape(codes.shape[0], -1, 8)[..., _ORDER].long()
    packed = (eights << (4 * torch.arange(8))).sum(-1)
    return torch.where(packed >= 2**31, packed - 2**32, packed).int()
