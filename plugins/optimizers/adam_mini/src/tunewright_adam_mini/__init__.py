"""Adam-mini: AdamW with one second moment per block of weights."""

import math
from typing import Any

from pydantic import Field

from tunewright import PluginOptions, hookimpl
from tunewright.plugin import Optimizer
from tunewright.types import OptimizerRequest, RunContext


class AdamMini(Optimizer):
    """AdamW with one second moment per attention head of queries and keys, per row of other
    matrices and per vector (Zhang et al. 2024, arXiv:2406.16793): half of AdamW's state, and its
    learning rate.
    """

    class Options(PluginOptions):
        beta1: float = Field(0.9, ge=0, lt=1)
        """Decay rate of the running mean of gradients."""
        beta2: float = Field(0.999, ge=0, lt=1)
        """Decay rate of the running mean of a block's squared gradients."""
        eps: float = Field(1e-8, gt=0, le=1)
        """Term added to the denominator for numerical stability."""

    def state_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        """The mean of gradients, and a number per row or vector, in the parameter's own dtype.
        Queries and keys have fewer: one per head."""
        width = self.dtype_bytes(dtype)
        return width * (math.prod(shape) + (math.prod(shape[:-1]) if len(shape) > 1 else 1))

    @hookimpl
    def build_optimizer(self, run: RunContext, request: OptimizerRequest) -> Any:
        from tunewright_adam_mini.blocks import BlockAdamW, rows_per_block
        from tunewright_hf.training.param_groups import parameter_groups

        options = self.options
        return BlockAdamW(
            parameter_groups(request),
            rows_per_block(request),
            betas=(options.beta1, options.beta2),
            eps=options.eps,
        )
