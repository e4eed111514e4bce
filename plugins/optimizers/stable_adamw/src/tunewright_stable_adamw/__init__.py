"""StableAdamW: AdamW with updates clipped per tensor."""

import math
from typing import Any

from pydantic import Field

from tunewright import PluginOptions, hookimpl
from tunewright.plugin import Optimizer
from tunewright.types import OptimizerRequest, RunContext


class StableAdamW(Optimizer):
    """AdamW whose update is divided by its root mean square if that is above 1, as in Adafactor
    (Wortsman et al. 2023, arXiv:2304.13013), through pytorch-optimizer. Use it if AdamW's loss
    spikes; gradients then need no clipping. With bf16 weights (`training.precision: pure_bf16`)
    updates are added with Kahan summation, a third state."""

    class Options(PluginOptions):
        beta1: float = Field(0.9, ge=0, lt=1)
        """Decay rate of the running mean of gradients."""
        beta2: float = Field(0.99, ge=0, lt=1)
        """Decay rate of the running mean of squared gradients."""
        eps: float = Field(1e-8, gt=0, le=1)
        """Term added to the denominator for numerical stability."""

    def state_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        """First and second moments, in the parameter's own dtype, and Kahan compensation of 16-bit
        weights."""
        return (3 * 2 if dtype in ("bfloat16", "float16") else 2 * 4) * math.prod(shape)

    @hookimpl
    def build_optimizer(self, run: RunContext, request: OptimizerRequest) -> Any:
        from pytorch_optimizer import StableAdamW as Wrapped

        from tunewright_hf.training.param_groups import parameter_groups

        options = self.options
        return Wrapped(
            parameter_groups(request), betas=(options.beta1, options.beta2), eps=options.eps
        )
