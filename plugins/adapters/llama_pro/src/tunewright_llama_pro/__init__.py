"""LLaMA Pro: train new layers, inserted as copies without effect."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import Field

from tunewright import PluginOptions, Problem, RecipeError
from tunewright.types import AdapterRequest
from tunewright_hf.models.own_weights import OwnWeightsAdapter

if TYPE_CHECKING:
    from tunewright.check import Resolved


class LlamaPro(OwnWeightsAdapter):
    """Block expansion (Wu et al. 2024, arXiv:2401.02415): copies of layers are inserted evenly,
    with output projections of 0, so that the model is unchanged at first. Only they are trained,
    and what the model knows stays in its own layers. The result is a complete, deeper model. A
    later stage continues with the layers that an earlier one has inserted.
    """

    class Options(PluginOptions):
        new_layers: int | None = Field(
            None,
            ge=1,
            description="Number of layers to insert, at most as many as there are. Default: a "
            "quarter of the model's, as in the paper.",
        )

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        yield from super().objections(recipe)
        quantizer = recipe.choices.get("quantizer")
        if quantizer is not None and quantizer.make().trainable:
            yield Problem(
                quantizer.at,
                "layers that are trained as if they were quantized cannot be copied by "
                f"{self.name}",
                "set adapter: full, or take the quantizer out of the recipe",
            )

    def trained_parameters(self, request: AdapterRequest) -> list[str]:
        """Names of the parameters of new layers, which are inserted unless the model has them, and
        of a new head."""
        from tunewright_hf.models.modules import layers
        from tunewright_llama_pro.expansion import expand, expanded_layers

        loaded, wanted = request.loaded, self.options.new_layers
        present = expanded_layers(loaded.model)
        if present and wanted and wanted != len(present):
            raise RecipeError(
                f"is {wanted}, and the model was expanded by {len(present)} layers",
                place="adapter.new_layers",
                hint="leave it out to continue with these",
            )
        new = present or expand(loaded, wanted)
        stack, _ = layers(loaded.model, loaded.adapter_exclude)
        trained = tuple(f"{stack}.{number}." for number in new)
        if request.head != "causal_lm":
            trained += ("score.",)
        return [name for name, _ in loaded.model.named_parameters() if name.startswith(trained)]

    def works_on_meta(self) -> bool:
        return True
