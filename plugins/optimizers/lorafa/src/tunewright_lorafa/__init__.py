"""LoRA-FA: trains only the B matrices of LoRA, with a projected gradient."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pydantic import Field

from tunewright import PluginOptions, Problem, RecipeError, hookimpl
from tunewright.plugin import Optimizer
from tunewright.types import OptimizerRequest, RunContext
from tunewright_hf.models.peft_lora import LoraAdapter

if TYPE_CHECKING:
    from tunewright.check import Resolved


class LoraFA(Optimizer):
    """Freezes the A matrices of LoRA and trains B by a projected gradient (Zhang et al. 2023,
    arXiv:2308.03303), through PEFT. Layers then keep no full input for the backward pass: fewer
    activations, and half of the states. All else that is trained has AdamW.
    """

    class Options(PluginOptions):
        beta1: float = Field(0.9, ge=0, lt=1)
        """Decay rate of the running mean of gradients."""
        beta2: float = Field(0.999, ge=0, lt=1)
        """Decay rate of the running mean of squared gradients."""
        eps: float = Field(1e-6, gt=0, le=1)
        """Term added to the denominator for numerical stability."""

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        yield from super().objections(recipe)
        adapter = recipe.plugin("adapter")
        if adapter and not issubclass(adapter, LoraAdapter):
            yield Problem(
                self.at,
                f"lorafa trains LoRA's matrices, and adapter {recipe.recipe.adapter.name} has none",
                "set adapter: lora, or another optimizer",
            )

    def state_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        """First and second moments of everything that is not frozen: A matrices have none."""
        return 2 * self.dtype_bytes(dtype) * math.prod(shape)

    @hookimpl
    def build_optimizer(self, run: RunContext, request: OptimizerRequest) -> Any:
        from tunewright_lorafa.pairs import LoraFAOptimizer, groups_of

        groups = groups_of(request)
        if not any(len(group["params"]) > 1 for group in groups):
            raise RecipeError(
                "lorafa found no LoRA matrices of linear layers",
                place="optimizer",
                hint="set adapter: lora, or another optimizer",
            )
        options = self.options
        return LoraFAOptimizer(groups, betas=(options.beta1, options.beta2), eps=options.eps)
