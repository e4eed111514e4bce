"""Schedule-free AdamW: averaged weights instead of a learning-rate schedule."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pydantic import Field

from tunewright import PluginOptions, Problem, hookimpl
from tunewright.plugin import Optimizer
from tunewright.types import OptimizerRequest, RunContext

if TYPE_CHECKING:
    from tunewright.check import Resolved

_SCHEDULES = ("constant", "constant_with_warmup")


class ScheduleFree(Optimizer):
    """AdamW that trains one sequence of weights and evaluates the average of all (Defazio et al.
    2024, arXiv:2405.15682), through schedulefree. It needs no number of steps in advance: set
    `training.lr_scheduler_type: constant` or `constant_with_warmup`. Memory as AdamW.
    """

    elementwise = True
    averages_weights = True

    class Options(PluginOptions):
        beta1: float = Field(0.9, gt=0, lt=1)
        """Interpolation between the average and the newest weights, where gradients are taken."""
        beta2: float = Field(0.999, ge=0, lt=1)
        """Decay rate of the running mean of squared gradients."""
        eps: float = Field(1e-8, gt=0, le=1)
        """Term added to the denominator for numerical stability."""
        r: float = Field(0.0, ge=0)
        """Exponent of the step in the average: later weights count more."""
        weight_lr_power: float = Field(2.0, ge=0)
        """Exponent of the learning rate in the average: weights of the warm-up count less."""

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        yield from super().objections(recipe)
        for stage in recipe.stages:
            scheduler = stage.choices.get("scheduler") or recipe.choices.get("scheduler")
            name = scheduler.entry.name if scheduler else "cosine"
            if name not in _SCHEDULES:
                yield Problem(
                    stage.place("lr_scheduler_type"),
                    f"is {name}, and schedule_free averages weights in place of a schedule",
                    f"set {_SCHEDULES[0]}, or {_SCHEDULES[1]} with warmup_steps",
                )

    def state_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        """Newest weights and second moment, in the parameter's own dtype."""
        return 2 * self.dtype_bytes(dtype) * math.prod(shape)

    @hookimpl
    def build_optimizer(self, run: RunContext, request: OptimizerRequest) -> Any:
        from schedulefree import AdamWScheduleFree

        from tunewright_hf.training.param_groups import parameter_groups

        options = self.options
        return AdamWScheduleFree(
            parameter_groups(request),
            betas=(options.beta1, options.beta2),
            **options.model_dump(exclude={"beta1", "beta2"}),
        )
