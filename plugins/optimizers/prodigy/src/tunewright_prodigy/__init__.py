"""Prodigy: AdamW that estimates its learning rate."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from tunewright import PluginOptions, Problem, hookimpl
from tunewright.plugin import Optimizer
from tunewright.types import OptimizerRequest, RunContext

if TYPE_CHECKING:
    from tunewright.check import Resolved

_SMALLEST = 0.01  # a smaller factor is a learning rate for another optimizer


class Prodigy(Optimizer):
    """AdamW that estimates the distance to the solution, and from it its learning rate (Mishchenko
    and Defazio 2023, arXiv:2306.06101), through pytorch-optimizer. `training.learning_rate` is a
    factor of the rate that it finds: set 1.0. Four states per weight, twice AdamW's.
    """

    deviations: ClassVar = {
        "test_weight_decay": "Without gradients its rate stays at d0: float32 rounds the decay off."
    }

    class Options(PluginOptions):
        beta1: float = Field(0.9, ge=0, lt=1)
        """Decay rate of the running mean of gradients."""
        beta2: float = Field(0.999, ge=0, lt=1)
        """Decay rate of the running mean of squared gradients."""
        eps: float = Field(1e-8, gt=0, le=1)
        """Term added to the denominator for numerical stability."""
        d0: float = Field(1e-6, gt=0)
        """First estimate of the distance."""
        d_coef: float = Field(1.0, gt=0)
        """Factor of the estimated distance."""
        safeguard_warmup: bool = False
        """Keep the schedule's warm-up out of the estimate's denominator."""
        bias_correction: bool = False
        """Adam's bias correction."""

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        yield from super().objections(recipe)
        for stage in recipe.stages:
            if stage.training.learning_rate < _SMALLEST:
                yield Problem(
                    stage.place("learning_rate"),
                    f"is {stage.training.learning_rate:g}, and prodigy finds the rate itself: here "
                    "it is a factor of that",
                    "set 1.0",
                )

    def state_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        """First and second moments, initial weights and sum of gradients, in the parameter's own
        dtype."""
        return 4 * self.dtype_bytes(dtype) * math.prod(shape)

    @hookimpl
    def build_optimizer(self, run: RunContext, request: OptimizerRequest) -> Any:
        from pytorch_optimizer import Prodigy as Wrapped

        from tunewright_hf.training.param_groups import parameter_groups

        options = self.options
        return Wrapped(
            parameter_groups(request),
            betas=(options.beta1, options.beta2),
            **options.model_dump(exclude={"beta1", "beta2"}),
        )
