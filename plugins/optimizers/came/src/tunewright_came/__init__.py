"""CAME: factored second moments, with confidence-guided updates."""

import math
from typing import Any

from pydantic import Field

from tunewright import PluginOptions, hookimpl
from tunewright.plugin import Optimizer
from tunewright.types import OptimizerRequest, RunContext


class CAME(Optimizer):
    """Factored second moments, and updates scaled by their confidence (Luo et al. 2023,
    arXiv:2307.02047), through pytorch-optimizer. A mean of updates per weight and little more:
    about half of AdamW's state.
    """

    class Options(PluginOptions):
        beta1: float = Field(0.9, ge=0, lt=1)
        """Decay rate of the running mean of updates."""
        beta2: float = Field(0.999, ge=0, lt=1)
        """Decay rate of the running mean of squared gradients."""
        beta3: float = Field(0.9999, ge=0, lt=1)
        """Decay rate of the running mean of the updates' instability."""
        clip_threshold: float = Field(1.0, gt=0)
        """Largest root mean square of an update."""

    def state_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        """Mean of updates; squared gradients and instability by rows and columns."""
        width = self.dtype_bytes(dtype)
        if len(shape) < 2:
            return width * 2 * math.prod(shape)
        by_rows, by_columns = math.prod(shape[:-1]), math.prod((*shape[:-2], shape[-1]))
        return width * (math.prod(shape) + 2 * (by_rows + by_columns))

    @hookimpl
    def build_optimizer(self, run: RunContext, request: OptimizerRequest) -> Any:
        import pytorch_optimizer

        from tunewright_hf.training.param_groups import parameter_groups

        options = self.options
        return pytorch_optimizer.CAME(
            parameter_groups(request),
            betas=(options.beta1, options.beta2, options.beta3),
            clip_threshold=options.clip_threshold,
        )
