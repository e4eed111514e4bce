"""LISA: train a few random layers at a time."""

from collections.abc import Collection

from pydantic import Field

from tunewright import PluginOptions, RecipeError
from tunewright.types import AdapterRequest, LoadedModel
from tunewright_hf.models.own_weights import OwnWeightsAdapter
from tunewright_hf.training.block_switching import (
    BlockSwitching,
    shuffled,
)


class Lisa(OwnWeightsAdapter):
    """Trains embeddings, final norm and head always, and a few random layers at a time (Pan et al.
    2024, arXiv:2403.17919): gradients and optimizer states of these alone are in memory. States of
    a layer are dropped when it is left. The result is a complete model.
    """

    switches_parameters = True
    trains_new_tokens = True

    class Options(PluginOptions):
        activated_layers: int = Field(
            2, ge=1, description="Number of layers that are trained at a time."
        )
        interval_steps: int = Field(
            20, ge=1, description="Optimizer steps before other layers are drawn."
        )

    def trained_parameters(self, request: AdapterRequest) -> Collection[str]:
        """Names of everything that is trained at some time; a callback switches the layers."""
        from tunewright_hf.models.modules import layers

        loaded, wanted = request.loaded, self.options.activated_layers
        stack, count = layers(loaded.model, loaded.adapter_exclude)
        if wanted > count:
            raise RecipeError(
                f"the model has {count} layers, not {wanted}", place="adapter.activated_layers"
            )
        always = _outside(loaded, stack)
        names = [name for name, _ in loaded.model.named_parameters()]
        each = [
            [name for name in names if name.startswith(f"{stack}.{number}.")]
            for number in range(count)
        ]

        def choose(period: int, seed: int) -> Collection[str]:
            drawn = shuffled(count, seed, period)[:wanted]
            return [*always, *(name for number in drawn for name in each[number])]

        if request.trainable:
            loaded.model.training_callbacks = [BlockSwitching(self.options.interval_steps, choose)]
        return frozenset(always).union(*each)

    def works_on_meta(self) -> bool:
        return True


def _outside(loaded: LoadedModel, stack: str) -> list[str]:
    """Names of embeddings, final norm and head: what is outside the layers, without media
    towers."""
    from tunewright_hf.models.modules import within

    model = loaded.model
    modules = [model.get_output_embeddings(), getattr(model, "score", None)]
    head = {id(parameter) for each in modules if each for parameter in each.parameters()}
    return [
        name
        for name, parameter in model.named_parameters()
        if not name.startswith(f"{stack}.")
        and (id(parameter) in head or not within(name, loaded.adapter_exclude))
    ]
