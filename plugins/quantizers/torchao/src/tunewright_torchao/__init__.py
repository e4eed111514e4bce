"""Weights in int8, int4 or float8 while they are loaded, and quantization-aware training."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from tunewright import PluginOptions, Problem, hookimpl
from tunewright.types import LoadedModel, LoadRequest
from tunewright_hf.models.quantizers import AfterLoading, LibraryQuantizer

if TYPE_CHECKING:
    from tunewright.check import Resolved

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class TorchAo(LibraryQuantizer):
    """Linear layers, except heads, in int8, int4 or float8 through torchao, PyTorch's own library.
    int8 halves the memory of bfloat16 and costs next to no accuracy. With `qat`, layers compute as
    if they were quantized while their weights stay plain and are trained, so that the model loses
    less when it is quantized after training (Jacob et al. 2018, arXiv:1712.05877); that saves no
    memory. Without it, quantized weights cannot be trained: train an adapter.
    """

    libraries = ("torchao",)

    class Options(PluginOptions):
        type: Literal["int8", "int8_dynamic", "int4", "float8"] = Field(
            "int8",
            description="int8: a scale per row. int8_dynamic: activations are rounded to int8 too, "
            "for each token. int4: in groups, on an NVIDIA GPU unless qat is on. float8: e4m3, a "
            "scale per row.",
        )
        group_size: Literal[32, 64, 128, 256] = Field(
            128, description="With int4: weights that share a scale and a zero point."
        )
        qat: bool = Field(
            False,
            description="Quantization-aware training: train plain weights as if they were "
            "quantized. Not with float8.",
        )

    def __init__(self, options: Any, name: str = "") -> None:
        super().__init__(options, name)
        self.trainable = bool(options and options.qat)  # type: ignore[misc]

    def needs_gpu(self) -> str:
        return "int4" if self.options.type == "int4" and not self.options.qat else ""

    def objections(self, recipe: "Resolved") -> Iterator[Problem]:
        yield from super().objections(recipe)
        if not self.options.qat:
            return
        adapter = recipe.plugin("adapter")
        if not getattr(adapter, "trains_base_weights", False):
            yield Problem(
                (*self.at, "qat"),
                f"trains the model's own weights, and adapter {recipe.recipe.adapter.name} leaves "
                "them alone",
                "set adapter: full, or leave qat out",
            )
        if self.options.type == "float8":
            yield Problem((*self.at, "qat"), "is not for float8", "int8, int8_dynamic or int4")

    def unreadable(self, stored: dict[str, Any]) -> Iterator[str]:
        yield from super().unreadable(stored)
        if self.options.qat:
            yield "are quantized already, and qat trains plain weights"

    def weight_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        count, size = math.prod(shape), _BYTES.get(dtype, 2)
        if self.options.qat:
            return count * size
        if self.options.type == "int4":  # scales and zero points are in bfloat16
            return count / 2 + 2 * 2 * count / self.options.group_size
        zeros = 0 if self.options.type == "float8" else shape[0]
        return count + shape[0] * size + zeros

    @hookimpl
    def prepare_load(self, request: LoadRequest) -> bool:
        from tunewright_torchao import linear

        qat = self.options.qat
        request.quantization = AfterLoading(self.method) if qat else linear.config(self.options)
        return True

    @hookimpl
    def finish_load(self, loaded: LoadedModel) -> LoadedModel:
        from tunewright_torchao import linear

        if self.options.qat:
            linear.prepare(loaded, self.options)
        else:
            linear.give_gradients(loaded)
        return loaded
