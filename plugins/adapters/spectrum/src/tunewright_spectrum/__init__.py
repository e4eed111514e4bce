"""Spectrum: train the matrices with the highest signal-to-noise ratio."""

from typing import Literal

from pydantic import Field

from tunewright import PluginOptions
from tunewright.types import AdapterRequest
from tunewright_hf.models.own_weights import OwnWeightsAdapter


class Spectrum(OwnWeightsAdapter):
    """Trains the linear layers whose weights have the highest signal-to-noise ratio, a share of
    each type (Hartford et al. 2024, arXiv:2406.06623), with embeddings and head. The singular
    values of every matrix are computed once, on the model's device. The result is a complete model.
    """

    class Options(PluginOptions):
        top_fraction: float = Field(
            0.5,
            gt=0,
            le=1,
            description="Share of the modules of each type that is trained, at least one: 0.25 and "
            "0.5 in the paper.",
        )
        modules: Literal["all-linear"] | list[str] = Field(
            "all-linear",
            description="Types of modules to choose from, such as mlp.down_proj or q_proj. "
            "all-linear: every linear layer except routers, fused experts and media towers.",
        )
        train_embeddings: bool = Field(True, description="Also train embeddings and head.")

    def trained_parameters(self, request: AdapterRequest) -> list[str]:
        """Names of the chosen matrices, of embeddings and head."""
        if not request.trainable:  # which costs a singular value decomposition per matrix
            return []
        trained = self._trained(request)
        return [
            name for name, each in request.loaded.model.named_parameters() if id(each) in trained
        ]

    def _trained(self, request: AdapterRequest) -> set[int]:
        """Ids of the parameters that are trained."""
        from tunewright_spectrum.selection import best_of_each_type

        loaded, options = request.loaded, self.options
        model = loaded.model
        modules = [model.get_submodule(name) for name in best_of_each_type(loaded, options)]
        if options.train_embeddings:
            modules += [model.get_input_embeddings(), model.get_output_embeddings()]
        if request.head != "causal_lm":
            modules.append(model.score)
        return {id(each) for module in modules if module for each in module.parameters()}
