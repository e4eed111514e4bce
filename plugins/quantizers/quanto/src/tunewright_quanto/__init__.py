"""Weights in 2, 4 or 8 bits while they are loaded, on any device that torch has."""

import math
from typing import Literal

from pydantic import Field

from tunewright import PluginOptions, hookimpl
from tunewright.types import LoadedModel, LoadRequest
from tunewright_hf.models.quantizers import LibraryQuantizer

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_BITS = {"int8": 8, "float8": 8, "int4": 4, "int2": 2}


class Quanto(LibraryQuantizer):
    """Linear layers, except heads, in 2, 4 or 8 bits by rounding to the nearest, through
    optimum-quanto: plain torch operations, so that it works on MPS and other devices too. int8 and
    float8 are near the plain model; int2 is coarse. Quantized weights cannot be trained: train an
    adapter.
    """

    libraries = ("optimum.quanto",)
    reads_checkpoints = False  # transformers writes none

    class Options(PluginOptions):
        weights: Literal["int8", "int4", "int2", "float8"] = Field(
            "int8", description="Data type of the quantized weights."
        )

    def weight_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        count, size = math.prod(shape), _BYTES.get(dtype, 2)
        bits = _BITS[self.options.weights]
        if bits == 8:
            return count + shape[0] * size  # a scale per row
        group = _group(count // shape[0])
        return count * bits / 8 + 2 * size * count / group  # scales and shifts

    @hookimpl
    def prepare_load(self, request: LoadRequest) -> bool:
        from transformers import QuantoConfig

        request.quantization = QuantoConfig(weights=self.options.weights)
        return True

    @hookimpl
    def finish_load(self, loaded: LoadedModel) -> LoadedModel:
        return loaded


def _group(columns: int) -> int:
    """Weights that share a scale: of a row of more than 128, 128 or the next multiple of 32 below
    that divides it; else the row."""
    sizes = (128, 96, 64, 32) if columns > 128 else ()
    return next((size for size in sizes if columns % size == 0), columns)
