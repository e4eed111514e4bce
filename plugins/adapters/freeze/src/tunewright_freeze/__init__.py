"""Train some layers and freeze the rest."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from tunewright import Adapter, PluginOptions, RecipeError, hookimpl
from tunewright.types import AdapterRequest, LoadedModel

if TYPE_CHECKING:
    from tunewright.types import RunContext


class Freeze(Adapter):
    """Trains the first or last layers of the model, or some of their modules. The result is a
    complete model."""

    trains_base_weights = True

    class Options(PluginOptions):
        trainable_layers: int = Field(
            2,
            description="Number of trained layers. Positive: the last ones. Negative: the first "
            "ones.",
        )
        modules: Literal["all"] | list[str] = Field(
            "all",
            description="Modules of these layers to train, by name, such as mlp or "
            "self_attn.q_proj. all: the whole layers.",
        )
        extra_modules: list[str] = Field(
            default_factory=list,
            description="Names of further modules to train, anywhere in the model, such as "
            "embed_tokens or lm_head.",
        )

    @hookimpl
    def apply_adapter(self, run: "RunContext", request: AdapterRequest) -> LoadedModel:
        """Set requires_grad on what the options name and on a new head, or on nothing with
        `request.trainable` off."""
        from tunewright_hf.models.modules import train_only

        if request.adapter_path:
            raise RecipeError(
                "the run trained an adapter, freeze has none to go on from", place="adapter"
            )
        loaded = request.loaded
        trained = self._modules(loaded) | ({"score"} if request.head != "causal_lm" else set())
        names = [
            name
            for name, _ in loaded.model.named_parameters()
            if request.trainable and any(name.startswith(f"{module}.") for module in trained)
        ]
        train_only(loaded.model, names, loaded.quantized)
        loaded.trained = frozenset(names)
        loaded.saves = "model"
        return loaded

    def merge(self, loaded: LoadedModel) -> LoadedModel:
        """Return the model as it is: there is nothing beside its weights."""
        return loaded

    def _modules(self, loaded: LoadedModel) -> set[str]:
        """Full names of the modules that are trained."""
        from tunewright_hf.models.modules import layers, matching

        options, every = self.options, [name for name, _ in loaded.model.named_modules()]
        stack, count = layers(loaded.model, loaded.adapter_exclude)
        wanted = abs(options.trainable_layers)
        if wanted > count:
            raise RecipeError(
                f"the model has {count} layers, not {wanted}", place="adapter.trainable_layers"
            )
        first = count - wanted if options.trainable_layers > 0 else 0
        chosen = {f"{stack}.{number}" for number in range(first, first + wanted)}
        if options.modules != "all":
            inside = [
                name for name in every if any(name.startswith(f"{layer}.") for layer in chosen)
            ]
            chosen = matching(inside, options.modules, "adapter.modules")
        chosen |= matching(every, options.extra_modules, "adapter.extra_modules")
        if not chosen:
            raise RecipeError("nothing is left to train", place="adapter.trainable_layers")
        return chosen
