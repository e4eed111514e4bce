"""Checkpoints in the formats of compressed-tensors, written by the library itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationScheme, preset_name_to_scheme
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from torch import Tensor

from tunewright_hf.models.packing import quantize_folder

#: format → llm-compressor's name of a scheme that has it
_SCHEMES = {
    "pack-quantized": "W4A16",
    "int-quantized": "W8A8",
    "float-quantized": "FP8_DYNAMIC",
    "nvfp4-pack-quantized": "NVFP4A16",
    "mxfp4-pack-quantized": "MXFP4A16",
}
_FORMATS = {"W8A16": "pack-quantized"} | {scheme: format for format, scheme in _SCHEMES.items()}
_GROUP = 32  # of int4: 128 would not divide the rows of tiny twins


def write(folder: Path, format: str) -> None:
    """Quantize the plain checkpoint in `folder` by rounding."""
    quantize_folder(folder, *scheme(_SCHEMES[format], _GROUP))


def scheme(name: str, group_size: int) -> tuple[Callable[[Tensor], dict[str, Tensor]], Any]:
    """llm-compressor's scheme of this name: a function from a weight to the tensors that the format
    has in its place, and the quantization_config.

    group_size: of int4.
    """
    found = preset_name_to_scheme(name, ["Linear"])
    if found.weights.strategy == "group" and found.weights.type == "int":
        found.weights.group_size = group_size
    format = _FORMATS[name]
    config: dict[str, Any] = {
        "quant_method": "compressed-tensors",
        "format": format,
        "quantization_status": "compressed",
        "config_groups": {"group_0": found.model_dump(mode="json")},
        "ignore": None,
    }
    return lambda weight: tensors(weight, found, format), config


def tensors(weight: Tensor, scheme: QuantizationScheme, format: str) -> dict[str, Tensor]:
    """The tensors that the format has in place of a weight (out, in), such as weight_packed and
    weight_scale."""
    args, state = scheme.weights, {"weight": weight}
    grouped = weight.unflatten(1, (-1, args.group_size or weight.shape[1]))  # (out, groups, size)
    if args.strategy == "tensor_group":
        state["weight_global_scale"] = generate_gparam(weight.min(), weight.max())
    state["weight_scale"], state["weight_zero_point"] = calculate_qparams(
        grouped.amin(-1), grouped.amax(-1), args, state.get("weight_global_scale")
    )
    return dict(BaseCompressor.get_value_from_registry(format).compress(state, scheme))
