"""Muon for matrices, AdamW for all other parameters."""

import math
from typing import Any, Literal

from pydantic import Field

from tunewright import PluginOptions, hookimpl
from tunewright.plugin import Optimizer
from tunewright.types import OptimizerRequest, RunContext


class Muon(Optimizer):
    """Orthogonalised momentum for the matrices of hidden layers (Jordan et al. 2024; Liu et al.
    2025, arXiv:2502.16982), torch's implementation; AdamW for embeddings, heads, biases and norms.
    One state per weight of a matrix, half of AdamW's."""

    class Options(PluginOptions):
        momentum: float = Field(0.95, ge=0, lt=1)
        """Muon: share of the last update that is kept."""
        nesterov: bool = True
        """Muon: Nesterov momentum."""
        ns_steps: int = Field(5, gt=0, le=99)
        """Muon: Newton-Schulz iterations of the orthogonalisation."""
        adjust_lr: Literal["match_rms_adamw", "original"] = "match_rms_adamw"
        """Muon: match_rms_adamw scales updates to the size of AdamW's, so that its learning rate
        and weight decay serve for all parameters. original: as Jordan et al., for rates of about
        0.02."""
        beta1: float = Field(0.9, ge=0, lt=1)
        """AdamW: decay rate of the running mean of gradients."""
        beta2: float = Field(0.999, ge=0, lt=1)
        """AdamW: decay rate of the running mean of squared gradients."""
        eps: float = Field(1e-8, gt=0, le=1)
        """AdamW: term added to the denominator for numerical stability."""

    def state_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        """Momentum of a matrix, AdamW's two moments of a vector, in the parameter's dtype.
        Embeddings and heads, which are matrices too, have AdamW's."""
        width = self.dtype_bytes(dtype)
        return width * math.prod(shape) * (1 if len(shape) == 2 else 2)

    @hookimpl
    def build_optimizer(self, run: RunContext, request: OptimizerRequest) -> Any:
        from tunewright_hf.training.param_groups import hidden_matrices, parameter_groups
        from tunewright_muon.combined import MuonWithAdamW

        groups = parameter_groups(request)
        return MuonWithAdamW(groups, hidden_matrices(request), self.options)
