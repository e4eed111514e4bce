"""Base class of adapters that train weights of the model itself.

An adapter is a class with Options and one method that names what is trained:

    class Norms(OwnWeightsAdapter):
        def trained_parameters(self, request: AdapterRequest) -> Collection[str]:
            names = (name for name, _ in request.loaded.model.named_parameters())
            return [name for name in names if "norm" in name]

This module imports no torch, so that a plugin's `__init__` can derive from it.
"""

from collections.abc import Collection

from tunewright import Adapter, RecipeError, hookimpl
from tunewright.types import AdapterRequest, LoadedModel, RunContext

__all__ = ["OwnWeightsAdapter"]


class OwnWeightsAdapter(Adapter):
    """Trains some or all of the model's own weights. The result is a complete model."""

    trains_base_weights = True

    def trained_parameters(self, request: AdapterRequest) -> Collection[str]:
        """Return the names of the parameters to train, a new head's included. The model may be
        changed in place. Called with `request.trainable` off too, where nothing is trained."""
        raise NotImplementedError

    @hookimpl
    def apply_adapter(self, run: RunContext, request: AdapterRequest) -> LoadedModel:
        """Set requires_grad on the parameters that the options select; on nothing with
        `request.trainable` off. Raises RecipeError."""
        from tunewright_hf.models.modules import train_only

        if request.adapter_path:
            raise RecipeError(
                f"the run trained an adapter, {self.name} has none to go on from", place="adapter"
            )
        loaded = request.loaded
        chosen = self.trained_parameters(request)
        names = frozenset(chosen if request.trainable else ())
        train_only(loaded.model, names, loaded.quantized)
        if loaded.quantized and request.trainable:  # GPTQ keeps such weights in buffers
            raise RecipeError(
                f"{min(loaded.quantized)} is quantized and cannot be trained",
                place="adapter",
                hint="train an adapter, such as lora, or load the model without a quantizer",
            )
        loaded.trained, loaded.saves = names, "model"
        return loaded

    def merge(self, loaded: LoadedModel) -> LoadedModel:
        """Return the model unchanged: there are no weights besides its own."""
        return loaded
