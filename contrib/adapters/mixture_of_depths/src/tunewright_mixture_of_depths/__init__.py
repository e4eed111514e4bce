"""Mixture of depths: layers that only some tokens pass through."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from tunewright import Adapter, PluginOptions, RunError, hookimpl
from tunewright.check import Resolved
from tunewright.errors import Problem
from tunewright.types import AdapterRequest, LoadedModel, RunContext


class MixtureOfDepths(Adapter):
    """Gives every few layers a router, and in training sends only the tokens with the highest
    scores through them (Raposo et al. 2024, arXiv:2404.02258). Trains all weights. Outside of
    training a token passes if its score is above 0: how many do is not bounded.
    """

    trains_base_weights = True
    deviations: ClassVar[dict[str, str]] = {
        "test_begins_as_the_model": "Most tokens leave out layers, also at first.",
        "test_leaves_excluded_modules_alone": "It trains all weights of the model.",
        "test_merged": "The routing is part of the model, not of its weights.",
    }

    class Options(PluginOptions):
        capacity: float = Field(
            0.125,
            gt=0,
            le=1,
            description="Share of a row's tokens that pass through a routed layer in training.",
        )
        every: int = Field(
            2, ge=1, description="Routed layers: each whose number, from 1, is a multiple of this."
        )
        predictor_weight: float = Field(
            0.01,
            ge=0,
            description="Weight of the loss by which routers learn to say which tokens pass "
            "without knowing the rest of the row.",
        )

    def objections(self, recipe: Resolved) -> Iterator[Problem]:
        yield from super().objections(recipe)
        for stage in recipe.stages:
            if getattr(stage.choice.options, "packing", False):
                yield Problem(
                    (*stage.choice.at, "packing"),
                    "routers would choose among the tokens of all packed examples together",
                    "set packing: false",
                )
            if stage.choice.plugin.rows == "prompts":
                yield Problem(
                    self.at,
                    f"{stage.choice.entry.name} samples many rows at once, and compares them with "
                    "training, where other tokens pass",
                    "set adapter: lora or full",
                )
        for accelerator in recipe.lists.get("accelerator", []):
            if accelerator.plugin.shards:
                yield Problem(
                    self.at,
                    f"routed layers cannot be sharded by {accelerator.entry.name}",
                    "train without it, or set another adapter",
                )

    @hookimpl
    def apply_adapter(self, run: RunContext, request: AdapterRequest) -> LoadedModel:
        """Put routers before layers; with `request.adapter_path` all weights are those of that
        folder. Raises RecipeError if the model's layers cannot be routed, RunError for a folder
        that does not fit."""
        from tunewright_mixture_of_depths import routing, saving

        loaded = request.loaded
        model = routing.route(loaded, self.options, request.seed)
        if request.adapter_path:
            saving.load(model, request.adapter_path)
        model.requires_grad_(request.trainable)
        saving.save_as_adapter(model)
        if request.trainable:
            model.training_callbacks = [routing.Prediction(model, self.options.predictor_weight)]
        loaded.trained = frozenset(
            name for name, each in model.named_parameters() if each.requires_grad
        )
        loaded.saves = "adapter"
        return loaded

    def merge(self, loaded: LoadedModel) -> LoadedModel:
        """Raise RunError: there is no plain model that says the same."""
        raise RunError(
            "a mixture of depths cannot be merged: its routing is no weight", place="adapter"
        )

    def load_external(self, loaded: LoadedModel, folder: Path) -> LoadedModel:
        """Raise RunError: no other tool writes this."""
        raise RunError("no other tool saves a mixture of depths", place=str(folder))
