"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner."""

import math
from typing import Any

from pydantic import Field

from tunewright import PluginOptions, hookimpl
from tunewright.plugin import Optimizer
from tunewright.types import OptimizerRequest, RunContext


class SOAP(Optimizer):
    """Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2024, arXiv:2409.11321),
    through pytorch-optimizer. Needs fewer steps than AdamW for the same loss, at more time and
    memory per step: a matrix of m × n has states of 2mn + 2m² + 2n². The first step only
    initialises the preconditioner."""

    class Options(PluginOptions):
        beta1: float = Field(0.95, ge=0, lt=1)
        """Decay rate of the running mean of gradients."""
        beta2: float = Field(0.95, ge=0, lt=1)
        """Decay rate of squared gradients and of the preconditioner."""
        eps: float = Field(1e-8, gt=0, le=1)
        """Term added to the denominator for numerical stability."""
        precondition_frequency: int = Field(10, gt=0)
        """Steps between two updates of the eigenbasis."""
        max_precondition_dim: int = Field(10000, gt=0)
        """Largest dimension that has a preconditioner, such as not the vocabulary."""

    def state_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        """First and second moments; for each dimension of a matrix its preconditioner and the
        eigenbasis."""
        width = self.dtype_bytes(dtype)
        sides = [side for side in shape if side <= self.options.max_precondition_dim]
        square = sum(side * side for side in sides) if len(shape) > 1 else 0
        return width * 2 * (math.prod(shape) + square)

    @hookimpl
    def build_optimizer(self, run: RunContext, request: OptimizerRequest) -> Any:
        from tunewright_hf.training.param_groups import parameter_groups
        from tunewright_soap.contiguous import ContiguousSOAP

        options = self.options
        return ContiguousSOAP(
            parameter_groups(request),
            betas=(options.beta1, options.beta2),
            **options.model_dump(exclude={"beta1", "beta2"}),
        )
