"""GaLore: AdamW with states in a low-rank subspace of the gradients."""

import math
from typing import Any, Literal

from pydantic import Field

from tunewright import PluginOptions, RecipeError, hookimpl
from tunewright.plugin import Optimizer
from tunewright.types import OptimizerRequest, RunContext

_FEWEST = 4096  # values of a parameter whose states bitsandbytes quantizes


class GaLore(Optimizer):
    """AdamW on gradients that are projected to a low rank (Zhao et al. 2024, arXiv:2403.03507):
    all weights are trained, with the states of `rank` rows or columns a matrix. The projection
    is an SVD every `update_proj_gap` steps, which takes time. Embeddings, heads, biases and
    norms have AdamW's full states.
    """

    class Options(PluginOptions):
        rank: int = Field(128, gt=0)
        """Rank of the projected gradients. Matrices with no larger side are not projected."""
        update_proj_gap: int = Field(200, gt=0)
        """Optimizer steps between two SVDs."""
        scale: float = Field(0.25, gt=0)
        """Factor of the learning rate of projected matrices."""
        layerwise: bool = False
        """Update each parameter inside the backward pass and free its gradient: no rank holds all
        gradients. Needs gradient_accumulation_steps 1 and max_grad_norm 0."""
        bits: Literal[32, 8] = 32
        """Bits of the states. 8: through bitsandbytes."""
        beta1: float = Field(0.9, ge=0, lt=1)
        """Decay rate of the running mean of gradients."""
        beta2: float = Field(0.999, ge=0, lt=1)
        """Decay rate of the running mean of squared gradients."""
        eps: float = Field(1e-8, gt=0, le=1)
        """Term added to the denominator for numerical stability."""

    def __init__(self, options: Any, name: str = "") -> None:
        super().__init__(options, name)
        # an instance attribute: the option decides
        self.steps_in_backward = bool(options and options.layerwise)  # type: ignore[misc]

    def state_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        """First and second moments in the subspace, and the projection; both in full if not
        projected."""
        width = self.dtype_bytes(dtype)
        rank = self.options.rank
        if len(shape) != 2 or min(shape) <= rank:
            return 2 * self._bytes(math.prod(shape), width)
        return 2 * self._bytes(rank * max(shape), width) + width * rank * min(shape)

    def _bytes(self, count: int, width: int) -> float:
        """Bytes of one state of `count` values."""
        if self.options.bits == 32:
            return width * count
        if count < _FEWEST:
            return 4 * count
        # a float32 scale per 256 values; the table of 256 quantized values
        return count + 4 * math.ceil(count / 256) + 4 * 256

    @hookimpl
    def build_optimizer(self, run: RunContext, request: OptimizerRequest) -> Any:
        from tunewright_galore.projected import GaLoreOptimizer
        from tunewright_hf.distributed.layerwise import LayerwiseOptimizer
        from tunewright_hf.training.param_groups import hidden_matrices, parameter_groups

        options = self.options
        matrices = hidden_matrices(request)
        if all(min(each.shape) <= options.rank for each in matrices):
            raise RecipeError(
                f"is {options.rank}, and no trained matrix has a larger smallest side",
                place="optimizer.rank",
                hint="set a smaller rank, or adapter: full",
            )

        def build(groups: list[dict[str, Any]]) -> Any:
            return GaLoreOptimizer(groups, matrices, options)

        groups = parameter_groups(request)
        return LayerwiseOptimizer(groups, build) if options.layerwise else build(groups)
