"""EMA: an exponential moving average of the trained weights, evaluated and saved in their place."""

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Any

from pydantic import Field

from tunewright import PluginOptions, Problem, hookimpl
from tunewright.plugin import Accelerator
from tunewright.types import OptimizerRequest, RunContext

if TYPE_CHECKING:
    from tunewright.check import Resolved


class Ema(Accelerator):
    """Keeps an exponential moving average (EMA) of the trained weights, in float32 (Polyak and
    Juditsky 1992; Morales-Brotons et al. 2024, arXiv:2411.18704). Evaluations, the best model and
    the result have the average; training goes on with the raw weights.

    Checkpoints hold both, and a resumed run ends with the same weights. Memory: 4 bytes per trained
    parameter, and a copy of the trained weights during evaluations.
    """

    class Options(PluginOptions):
        decay: float = Field(0.999, ge=0, lt=1)
        """Share of the average that each step keeps; the weights of about the last
        1 / (1 - decay) steps count."""
        warmup: bool = True
        """Keep less in the first steps, at most (1 + n) / (10 + n) in step n, so that a short
        training forgets the weights that it began with."""

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        yield from super().objections(recipe)
        for other in recipe.lists.get("accelerator", []):
            if other.plugin.shards:
                yield Problem(
                    self.at,
                    f"ema averages whole weights, and {other.entry.name} shards them",
                    f"take ema or {other.entry.name} out of the recipe",
                )
        for stage in recipe.stages:
            if stage.choice.plugin.rows == "prompts":
                yield Problem(
                    self.at,
                    f"{stage.choice.entry.name} trains on its own rollouts, which would be drawn "
                    "from the average",
                    "take ema out of the recipe, or train this stage in a run of its own",
                )
            optimizer = stage.choices.get("optimizer") or recipe.choices.get("optimizer")
            if optimizer and getattr(optimizer.plugin, "averages_weights", False):
                yield Problem(
                    self.at,
                    f"optimizer {optimizer.entry.name} averages the weights itself",
                    "take ema out of the recipe, or set another optimizer such as adamw",
                )

    @hookimpl(wrapper=True)
    def build_optimizer(
        self, run: RunContext, request: OptimizerRequest
    ) -> Generator[None, Any, Any]:
        from tunewright_ema.average import WeightAverage

        optimizer = yield
        average = WeightAverage(request.parameters, self.options.decay, self.options.warmup)
        return average.attached_to(optimizer)
