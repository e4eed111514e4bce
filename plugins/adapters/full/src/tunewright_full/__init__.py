"""Train every weight."""

from collections.abc import Iterator

from pydantic import Field

from tunewright import PluginOptions
from tunewright.check import Resolved
from tunewright.errors import Problem
from tunewright.types import AdapterRequest
from tunewright_hf.models.own_weights import OwnWeightsAdapter


class Full(OwnWeightsAdapter):
    """No adapter: trains all weights of the model. The result is a complete model."""

    trains_new_tokens = True

    class Options(PluginOptions):
        train_embeddings: bool = Field(
            True,
            description="Train the input embeddings too, and the output head where it shares their "
            "weights.",
        )

    def objections(self, recipe: Resolved) -> Iterator[Problem]:
        yield from super().objections(recipe)
        if not self.options.train_embeddings and getattr(
            recipe.options("family"), "new_tokens", None
        ):
            yield Problem(
                (*self.at, "train_embeddings"),
                "the embeddings of new tokens would not be trained",
                "leave train_embeddings out, or set adapter: lora",
            )

    def trained_parameters(self, request: AdapterRequest) -> list[str]:
        """Names of all parameters but those of `LoadedModel.frozen`, and but the input embeddings
        if they are not trained."""
        from tunewright_hf.models.modules import within

        model, frozen = request.loaded.model, set()
        if not self.options.train_embeddings:
            frozen = {id(model.get_input_embeddings().weight)}
        return [
            name
            for name, each in model.named_parameters()
            if id(each) not in frozen and not within(name, request.loaded.frozen)
        ]

    def works_on_meta(self) -> bool:
        return True
