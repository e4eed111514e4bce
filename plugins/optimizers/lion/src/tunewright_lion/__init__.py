"""Lion: sign updates."""

import math
from typing import Any

from pydantic import Field

from tunewright import PluginOptions, hookimpl
from tunewright.plugin import Optimizer
from tunewright.types import OptimizerRequest, RunContext


class Lion(Optimizer):
    """Updates by the sign of an interpolated momentum (Chen et al. 2023, arXiv:2302.06675), through
    pytorch-optimizer. One state per weight, half of AdamW's. Take a learning rate 3 to 10 times
    smaller than AdamW's, and a weight decay 3 to 10 times larger.
    """

    elementwise = True

    class Options(PluginOptions):
        beta1: float = Field(0.9, ge=0, lt=1)
        """Share of the momentum in the update's direction."""
        beta2: float = Field(0.99, ge=0, lt=1)
        """Decay rate of the momentum."""

    def state_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        """The momentum, in the parameter's own dtype."""
        return self.dtype_bytes(dtype) * math.prod(shape)

    @hookimpl
    def build_optimizer(self, run: RunContext, request: OptimizerRequest) -> Any:
        from pytorch_optimizer import Lion as Wrapped

        from tunewright_hf.training.param_groups import parameter_groups

        return Wrapped(parameter_groups(request), betas=(self.options.beta1, self.options.beta2))
