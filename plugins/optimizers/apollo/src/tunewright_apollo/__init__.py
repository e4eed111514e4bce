"""APOLLO: SGD-like memory with AdamW-like scaling."""

import math
from typing import Any, Literal

from pydantic import Field

from tunewright import PluginOptions, RecipeError, hookimpl
from tunewright.plugin import Optimizer
from tunewright.types import OptimizerRequest, RunContext


class Apollo(Optimizer):
    """Scales each channel of the gradient as AdamW would, estimated in a random subspace (Zhu et
    al. 2024, arXiv:2412.05270). No SVD, and rank 1 is enough with `scale_type: tensor`
    (APOLLO-Mini: set rank 1 and scale 128). Equal to apollo-torch, but for its random numbers.
    Embeddings, heads, biases and norms have AdamW's full states.
    """

    class Options(PluginOptions):
        rank: int = Field(256, gt=0)
        """Rank of the subspace. Matrices with no larger side have AdamW's full states."""
        update_proj_gap: int = Field(200, gt=0)
        """Optimizer steps between two random projections."""
        scale: float = Field(1.0, gt=0)
        """Square of the factor of the learning rate of projected matrices, as in apollo-torch."""
        scale_type: Literal["channel", "tensor"] = "channel"
        """channel: one factor per row or column. tensor: one per matrix (APOLLO-Mini)."""
        norm_growth_limit: float = Field(1.01, gt=1)
        """Largest ratio of an update's norm to that of the update before."""
        beta1: float = Field(0.9, ge=0, lt=1)
        """Decay rate of the running mean of gradients."""
        beta2: float = Field(0.999, ge=0, lt=1)
        """Decay rate of the running mean of squared gradients."""
        eps: float = Field(1e-6, gt=0, le=1)
        """Term added to the denominator for numerical stability."""

    def state_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        """First and second moments in the subspace, and the projection; both in full if not
        projected."""
        width = self.dtype_bytes(dtype)
        rank = self.options.rank
        if len(shape) != 2 or min(shape) <= rank:
            return width * 2 * math.prod(shape)
        return width * (2 * rank * max(shape) + rank * min(shape))

    @hookimpl
    def build_optimizer(self, run: RunContext, request: OptimizerRequest) -> Any:
        from tunewright_apollo.scaled import ApolloOptimizer
        from tunewright_hf.training.param_groups import hidden_matrices, parameter_groups

        matrices = hidden_matrices(request)
        if all(min(each.shape) <= self.options.rank for each in matrices):
            raise RecipeError(
                f"is {self.options.rank}, and no trained matrix has a larger smallest side",
                place="optimizer.rank",
                hint="set a smaller rank, or adapter: full",
            )
        seed = run.recipe.training.seed
        return ApolloOptimizer(parameter_groups(request), matrices, self.options, seed)
