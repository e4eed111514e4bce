"""Quantize weights to 4 or 8 bits while they are loaded, on GPUs and CPUs."""

import math
from typing import Any, Literal

from pydantic import Field

from tunewright import PluginOptions, hookimpl
from tunewright.types import LoadedModel, LoadRequest, RunContext
from tunewright_hf.models.quantizers import LibraryQuantizer

_BLOCK = 64  # weights that share a scale
_SECOND_BLOCK = 256  # scales that share a scale, with double quantization


class BitsAndBytes(LibraryQuantizer):
    """Linear layers, except heads, in 4 bits (QLoRA, Dettmers et al. 2023, arXiv:2305.14314) or 8
    bits (LLM.int8(), Dettmers et al. 2022, arXiv:2208.07339), through bitsandbytes. Quantized
    weights cannot be trained: train an adapter. Accelerator fsdp shards them in 4 bits.
    """

    class Options(PluginOptions):
        bits: Literal[4, 8] = Field(4, description="Bits per weight.")
        type: Literal["nf4", "fp4"] = Field(
            "nf4", description="4-bit data type: nf4 (normal quantiles) or fp4."
        )
        double_quantization: bool = Field(
            True,
            description="With 4 bits: also quantize the scales, which saves 0.4 bits per weight.",
        )

    libraries = ("bitsandbytes",)

    def __init__(self, options: Any, name: str = "") -> None:
        super().__init__(options, name)
        if options and options.bits == 4:
            self.sharded_by = ("fsdp",)  # type: ignore[misc]

    def weight_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        count = math.prod(shape)
        if self.options.bits == 8:
            return count + 4 * shape[0]  # a float32 scale per row
        blocks = math.ceil(count / _BLOCK)
        weights = math.ceil(count / 2) + 4 * 16  # and the 16 values, in float32
        if not self.options.double_quantization:
            return weights + 4 * blocks
        # a byte per scale; their own scales, 256 values and mean in float32
        return weights + blocks + 4 * (math.ceil(blocks / _SECOND_BLOCK) + 256 + 1)

    @hookimpl
    def prepare_load(self, run: RunContext, request: LoadRequest) -> bool:
        from tunewright_bitsandbytes import linear

        # a family without the option chooses the device itself
        family = run.plugin("family").options
        device = request.device or str(getattr(family, "device", "auto"))
        request.quantization = linear.config(self.options, run.recipe.training.precision, device)
        return True

    @hookimpl
    def finish_load(self, loaded: LoadedModel) -> LoadedModel:
        return loaded
