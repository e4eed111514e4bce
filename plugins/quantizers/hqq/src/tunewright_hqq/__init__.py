"""Weights in 1 to 8 bits without calibration data, on GPUs and on the CPU."""

import math
from typing import Literal

from pydantic import Field

from tunewright import PluginOptions, hookimpl
from tunewright.types import LoadedModel, LoadRequest
from tunewright_hf.models.quantizers import AfterLoading, LibraryQuantizer

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_PER_INT32 = 10  # numbers of 3 bits


class Hqq(LibraryQuantizer):
    """Linear layers, except heads, in 1 to 8 bits by half-quadratic quantization (Badri and Shaji
    2023, mobiusml.github.io/hqq_blog), through hqq. It needs no data, and takes seconds per billion
    weights on a GPU. The model is loaded plain and quantized then: that is the peak of memory.

    hqq packs 4, 3, 2 and 1 bits; 6 and 5 take a whole byte each, and round as coarsely as they say.
    For 4 bits and more it is near NF4; below that, adapters have to make up for much. Quantized
    weights cannot be trained: train an adapter.
    """

    libraries = ("hqq",)
    reads_checkpoints = False  # transformers reads none of hqq

    class Options(PluginOptions):
        bits: Literal[8, 6, 5, 4, 3, 2, 1] = Field(4, description="Bits per weight.")
        group_size: int = Field(
            64,
            ge=8,
            le=1024,
            multiple_of=8,
            description="Weights that share a scale and a zero point. It must divide the number of "
            "weights of every layer.",
        )

    def weight_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        groups = math.ceil(math.prod(shape) / self.options.group_size)
        scales = 2 * groups * _BYTES.get(dtype, 2)  # and zero points
        if self.options.bits == 3:
            return 4 * math.ceil(groups / _PER_INT32) * self.options.group_size + scales
        bits = 8 if self.options.bits > 4 else self.options.bits
        return math.prod(shape) * bits / 8 + scales

    @hookimpl
    def prepare_load(self, request: LoadRequest) -> bool:
        request.quantization = AfterLoading(self.method)
        return True

    @hookimpl
    def finish_load(self, loaded: LoadedModel) -> LoadedModel:
        from tunewright_hqq import linear

        linear.quantize(loaded, self.options.bits, self.options.group_size)
        return loaded
