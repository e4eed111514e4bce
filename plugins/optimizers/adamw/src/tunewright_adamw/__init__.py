"""AdamW, the default optimizer."""

import math
from collections.abc import Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from tunewright import PluginOptions, Problem, hookimpl
from tunewright.plugin import Optimizer
from tunewright.types import OptimizerRequest, RunContext

if TYPE_CHECKING:
    from tunewright.check import Resolved

_FEWEST = 4096  # values of a parameter whose states are quantized
_ADVANCED: Any = {"tier": "advanced"}


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2017, arXiv:1711.05101), torch's
    implementation; quantized states through bitsandbytes or torchao."""

    class Options(PluginOptions):
        beta1: float = Field(0.9, ge=0, lt=1)
        """Decay rate of the running mean of gradients."""
        beta2: float = Field(0.999, ge=0, lt=1)
        """Decay rate of the running mean of squared gradients."""
        eps: float = Field(1e-8, gt=0, le=1)
        """Term added to the denominator for numerical stability."""
        bits: Literal[32, 8, 4] = 32
        """Bits per optimizer state (Dettmers et al. 2021, arXiv:2110.02861). 32: the parameter's
        own dtype. 8 and 4: quantized in blocks, for parameters of at least 4096 values."""
        paged: bool = Field(False, json_schema_extra=_ADVANCED)
        """With bitsandbytes on a GPU: let states move to CPU memory where the GPU's is full."""
        library: Literal["bitsandbytes", "torchao"] = Field(
            "bitsandbytes", json_schema_extra=_ADVANCED
        )
        """Library of quantized states. torchao has 4 bits and fp8 too, and compiles its step."""
        fp8: bool = Field(False, json_schema_extra=_ADVANCED)
        """With torchao and 8 bits: store states as float8."""

        @model_validator(mode="after")
        def _go_together(self) -> Self:
            if self.bits == 4 and self.library != "torchao":
                raise ValueError("bits: 4 goes with library: torchao")
            if self.fp8 and (self.bits, self.library) != (8, "torchao"):
                raise ValueError("fp8 goes with bits: 8 and library: torchao")
            if self.paged and (self.bits == 4 or self.library != "bitsandbytes"):
                raise ValueError("paged goes with library: bitsandbytes and 32 or 8 bits")
            return self

    def __init__(self, options: Any, name: str = "") -> None:
        super().__init__(options, name)
        # quantized states have one scale per block of values, which a shard would divide otherwise
        self.elementwise = self._is_plain() if options else True  # type: ignore[misc]

    def _is_plain(self) -> bool:
        return self.options.bits == 32 and not self.options.paged

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        yield from super().objections(recipe)
        library = self.options.library
        if not self._is_plain() and find_spec(library) is None:
            yield Problem(
                (*self.at, "library"),
                f"{library} is not installed",
                f"pip install tunewright-adamw[{library}]",
            )

    def state_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        """First and second moments, in the parameter's own dtype, or quantized with their
        scales."""
        count, options = math.prod(shape), self.options
        if self._is_plain():
            return 2 * self.dtype_bytes(dtype) * count
        if options.library == "bitsandbytes":
            if options.bits == 32 or count < _FEWEST:
                return 2 * 4 * count
            # a float32 scale per 256 values; the table of 256 quantized values
            return 2 * (count + 4 * math.ceil(count / 256) + 4 * 256)
        block = 128 if options.bits == 4 else 256
        if count < _FEWEST or count % block:
            return 2 * self.dtype_bytes(dtype) * count
        table = 0 if options.fp8 else 4 * 2**options.bits
        return 2 * (count * options.bits / 8 + 4 * count / block + table)

    @hookimpl
    def build_optimizer(self, run: RunContext, request: OptimizerRequest) -> Any:
        from tunewright_hf.training.param_groups import parameter_groups

        options, groups = self.options, parameter_groups(request)
        settings = {"betas": (options.beta1, options.beta2), "eps": options.eps}
        if not self._is_plain():
            from tunewright_adamw import quantized

            return quantized.build(options, groups, settings)
        from torch.optim import AdamW as TorchAdamW

        # fused: one pass over memory per step instead of ten
        fused = {parameter.device.type for _, parameter in request.parameters} in (
            {"cuda"},
            {"cpu"},
        )
        return TorchAdamW(groups, fused=fused, **settings)
