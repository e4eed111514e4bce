"""Selective activation checkpointing."""

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from tunewright import PluginOptions, Problem, hookimpl
from tunewright.plugin import Accelerator
from tunewright.types import RunContext, StageResult, TrainRequest

if TYPE_CHECKING:
    from tunewright.check import Resolved


class ActivationCheckpointing(Accelerator):
    """Recomputes the activations of some layers, or of parts of layers, in the backward pass
    (selective checkpointing; Korthikanti et al. 2022, arXiv:2205.05198). It takes less time than
    training.activation_checkpointing, which recomputes all, and more memory. Gradients are equal.
    """

    class Options(PluginOptions):
        every_n_layers: int = Field(2, ge=1, le=1024)
        """Recompute every n-th layer, as selective_ac_option in TorchTitan. 1: all layers."""
        operators: list[Literal["attention", "mlp"]] = Field(default_factory=list, max_length=2)
        """Recompute only these parts of the chosen layers. Default: whole layers. With sdpa or
        flash attention, whose activations are small, mlp saves more."""

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        if getattr(recipe.plugin("adapter"), "uses_cache", False):
            adapter = recipe.recipe.adapter.name
            yield Problem(
                self.at,
                f"recomputes layers, and adapter {adapter} gives them keys and values only once",
                "take it out of the recipe, or set adapter: prompt_tuning",
            )
        for stage in recipe.stages:
            if stage.training.activation_checkpointing:
                yield Problem(
                    stage.place("activation_checkpointing"),
                    "recomputes all layers, and accelerator activation_checkpointing some",
                    "leave out one of them",
                )

    @hookimpl(wrapper=True)
    def train_stage(
        self, run: RunContext, request: TrainRequest
    ) -> Generator[None, StageResult, StageResult]:
        from tunewright_activation_checkpointing.selection import checkpointed, selected
        from tunewright_hf.training.forward_wrapping import wrapped_in_training

        modules = selected(
            request.loaded.model, self.options.every_n_layers, self.options.operators
        )
        with wrapped_in_training(modules, checkpointed):
            return (yield)
