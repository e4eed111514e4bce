"""Train some layers and freeze the rest."""

import re
from typing import Literal

from pydantic import Field, field_validator

from tunewright import PluginOptions, RecipeError
from tunewright.types import AdapterRequest, LoadedModel
from tunewright_hf.models.own_weights import OwnWeightsAdapter


class Freeze(OwnWeightsAdapter):
    """Trains the first or last layers of the model, some of their modules, or parameters by
    pattern. The result is a complete model."""

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
        parameters: list[str] = Field(
            default_factory=list,
            description="Regular expressions of parameter names. Parameters that one of them "
            r"matches at their beginning are trained too, such as model\.layers\.[0-3]\.mlp\. With "
            "trainable_layers: 0, they alone.",
        )

        @field_validator("parameters")
        @classmethod
        def _are_patterns(cls, found: list[str]) -> list[str]:
            for pattern in found:
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
            return found

    def trained_parameters(self, request: AdapterRequest) -> list[str]:
        """Names of the parameters that the options select, and of a new head."""
        loaded = request.loaded
        every = [name for name, _ in loaded.model.named_parameters()]
        trained = self._modules(loaded) | ({"score"} if request.head != "causal_lm" else set())
        matched = self._matched(every)
        if not trained and not matched:
            raise RecipeError("nothing is left to train", place="adapter.trainable_layers")
        inside = tuple(f"{module}." for module in trained)
        return [name for name in every if name in matched or name.startswith(inside)]

    def works_on_meta(self) -> bool:
        return True

    def _modules(self, loaded: LoadedModel) -> set[str]:
        """Full names of the trained modules."""
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
        return chosen | matching(every, options.extra_modules, "adapter.extra_modules")

    def _matched(self, every: list[str]) -> set[str]:
        """Parameter names that a pattern matches."""
        found: set[str] = set()
        for pattern in self.options.parameters:
            matches = {name for name in every if re.match(pattern, name)}
            if not matches:
                raise RecipeError(
                    f"{pattern!r} matches no parameter, such as {every[0]}",
                    place="adapter.parameters",
                )
            found |= matches
        return found
