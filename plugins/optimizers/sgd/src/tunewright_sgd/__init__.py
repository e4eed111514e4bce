"""Stochastic gradient descent."""

import math
from typing import Any

from pydantic import Field

from tunewright import PluginOptions, hookimpl
from tunewright.plugin import Optimizer
from tunewright.types import OptimizerRequest, RunContext


class SGD(Optimizer):
    """Stochastic gradient descent with momentum (Sutskever et al. 2013), torch's implementation.
    One state per weight, none without momentum. Weight decay is coupled: it is added to the
    gradient."""

    elementwise = True

    class Options(PluginOptions):
        momentum: float = Field(0.9, ge=0, lt=1)
        """Share of the last update that is kept. 0: none, and no state."""
        nesterov: bool = False
        """Nesterov momentum."""

    def state_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        """The momentum, in the parameter's own dtype."""
        width = self.dtype_bytes(dtype)
        return width * math.prod(shape) if self.options.momentum else 0

    @hookimpl
    def build_optimizer(self, run: RunContext, request: OptimizerRequest) -> Any:
        import torch

        from tunewright_hf.training.param_groups import parameter_groups

        options = self.options
        return torch.optim.SGD(
            parameter_groups(request), momentum=options.momentum, nesterov=options.nesterov
        )
