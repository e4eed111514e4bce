"""Train every weight."""

from typing import TYPE_CHECKING

from pydantic import Field

from tunewright import Adapter, PluginOptions, RecipeError, hookimpl
from tunewright.types import AdapterRequest, LoadedModel

if TYPE_CHECKING:
    from tunewright.types import RunContext


class Full(Adapter):
    """No adapter: all weights of the model are trained, and the result is a complete model."""

    trains_base_weights = True

    class Options(PluginOptions):
        train_embeddings: bool = Field(
            True,
            description="Train the input embeddings too, and the output head where it shares their "
            "weights.",
        )

    @hookimpl
    def apply_adapter(self, run: "RunContext", request: AdapterRequest) -> LoadedModel:
        """Set requires_grad on all weights, or on none with `request.trainable` off."""
        from tunewright_hf.models.modules import train_only

        if request.adapter_path:
            raise RecipeError(
                "the run trained an adapter, full has none to go on from", place="adapter"
            )
        loaded = request.loaded
        frozen = (
            set()
            if self.options.train_embeddings
            else {id(loaded.model.get_input_embeddings().weight)}
        )
        names = [
            name
            for name, parameter in loaded.model.named_parameters()
            if request.trainable and id(parameter) not in frozen
        ]
        train_only(loaded.model, names, loaded.quantized)
        loaded.trained = frozenset(names)
        loaded.saves = "model"
        return loaded

    def merge(self, loaded: LoadedModel) -> LoadedModel:
        """Return the model as it is: there is nothing beside its weights."""
        return loaded
