"""Weights in 4 or 8 bits while they are loaded, on GPUs and on the CPU."""

from typing import TYPE_CHECKING, Literal

from tunewright import Plugin, PluginOptions, hookimpl
from tunewright.types import LoadedModel, LoadRequest

if TYPE_CHECKING:
    from tunewright.run import Run


class BitsAndBytes(Plugin):
    """Linear layers, but for heads, in 4 bits (QLoRA, Dettmers et al. 2023, arXiv:2305.14314) or 8
    (LLM.int8(), Dettmers et al. 2022, arXiv:2208.07339), through bitsandbytes. Such weights cannot
    be trained: an adapter is.
    """

    class Options(PluginOptions):
        bits: Literal[4, 8] = 4
        """bits of a weight"""
        type: Literal["nf4", "fp4"] = "nf4"
        """with 4 bits: the numbers that there are, spaced for normally distributed weights, or as
        floating point"""
        double_quantization: bool = True
        """with 4 bits: the scales are quantized too, which saves 0.4 bits a weight"""

    @hookimpl
    def prepare_load(self, run: "Run", request: LoadRequest) -> bool:
        from tunewright_bitsandbytes import linear

        request.quantization = linear.config(self.options, run.recipe.training.precision)
        return True

    @hookimpl
    def finish_load(self, loaded: LoadedModel) -> LoadedModel:
        from tunewright_bitsandbytes import linear

        linear.keep_layout(loaded.model)
        return loaded
