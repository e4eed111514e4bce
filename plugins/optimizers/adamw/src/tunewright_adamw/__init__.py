"""AdamW, the optimizer that most recipes want."""

import math
from typing import Any

from pydantic import Field

from tunewright import PluginOptions, hookimpl
from tunewright.plugin import Optimizer
from tunewright.types import OptimizerRequest


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2017, arXiv:1711.05101), as torch has
    it."""

    class Options(PluginOptions):
        beta1: float = Field(0.9, ge=0, lt=1)
        """Decay rate of the running mean of gradients."""
        beta2: float = Field(0.999, ge=0, lt=1)
        """Decay rate of the running mean of squared gradients."""
        eps: float = Field(1e-8, gt=0, le=1)
        """Term added to the denominator for numerical stability."""

    def state_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        """The means of gradients and of their squares, in the parameter's own dtype."""
        width = 2 if dtype in ("bfloat16", "float16") else 4
        return 2 * width * math.prod(shape)

    @hookimpl
    def build_optimizer(self, run: Any, request: OptimizerRequest) -> Any:
        from torch.optim import AdamW as TorchAdamW

        from tunewright_hf.training.param_groups import parameter_groups

        # one pass over the memory of a step in place of ten
        fused = {parameter.device.type for _, parameter in request.parameters} in (
            {"cuda"},
            {"cpu"},
        )
        betas = (self.options.beta1, self.options.beta2)
        return TorchAdamW(parameter_groups(request), betas=betas, eps=self.options.eps, fused=fused)
