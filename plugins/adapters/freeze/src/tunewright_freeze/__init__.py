"""Train some layers and freeze the rest."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from tunewright import Plugin, PluginOptions, RecipeError, hookimpl
from tunewright.types import AdapterRequest, LoadedModel

if TYPE_CHECKING:
    from tunewright.run import Run


class Freeze(Plugin):
    """Trains the last or the first layers of a model, whole or in part; the result is a whole
    model."""

    class Options(PluginOptions):
        trainable_layers: int = 2
        """how many layers are trained, counted from the end; from the beginning where negative"""
        modules: Literal["all"] | list[str] = "all"
        """names of the modules in these layers that are trained, such as mlp or self_attn.q_proj"""
        extra_modules: list[str] = Field(default_factory=list)
        """names of further modules that are trained, wherever they stand, such as embed_tokens or
        lm_head"""

    @hookimpl
    def apply_adapter(self, run: "Run", request: AdapterRequest) -> LoadedModel:
        """Set requires_grad on what the options name, and on a new head; on nothing with
        `request.trainable` off."""
        from tunewright_hf.models.modules import train_only

        if request.adapter_path:
            raise RecipeError(
                "the run trained an adapter, freeze has none to go on from", place="adapter"
            )
        model = request.loaded.model
        trained = self._modules(request.loaded) | (
            {"score"} if request.head != "causal_lm" else set()
        )
        names = [
            name
            for name, _ in model.named_parameters()
            if any(name.startswith(f"{m}.") for m in trained)
        ]
        train_only(model, names if request.trainable else ())
        request.loaded.saves = "model"
        return request.loaded

    def _modules(self, loaded: LoadedModel) -> set[str]:
        """Full names of the modules that are trained whole."""
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
