"""Train every weight."""

from typing import TYPE_CHECKING

from tunewright import Plugin, PluginOptions, RecipeError, hookimpl
from tunewright.types import AdapterRequest, LoadedModel

if TYPE_CHECKING:
    from tunewright.run import Run


class Full(Plugin):
    """No adapter: all weights of the model are trained, and the result is a whole model."""

    class Options(PluginOptions):
        train_embeddings: bool = True
        """train the input embeddings too, and the head where it shares their weights"""

    @hookimpl
    def apply_adapter(self, run: "Run", request: AdapterRequest) -> LoadedModel:
        """Set requires_grad on all weights, or none with `request.trainable` off."""
        from tunewright_hf.models.modules import train_only

        if request.adapter_path:
            raise RecipeError(
                "the run trained an adapter, full has none to go on from", place="adapter"
            )
        model = request.loaded.model
        frozen = (
            set() if self.options.train_embeddings else {id(model.get_input_embeddings().weight)}
        )
        names = [
            name for name, parameter in model.named_parameters() if id(parameter) not in frozen
        ]
        train_only(model, names if request.trainable else ())
        request.loaded.saves = "model"
        return request.loaded
