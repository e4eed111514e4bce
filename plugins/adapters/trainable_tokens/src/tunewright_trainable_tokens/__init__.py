"""Trainable tokens: train the embeddings of a few tokens, and nothing else."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from pydantic import ConfigDict, Field

from tunewright import PluginOptions, RecipeError
from tunewright.check import Resolved
from tunewright.errors import Problem
from tunewright.types import AdapterRequest, LoadedModel
from tunewright_hf.models.peft import PeftAdapter
from tunewright_hf.models.peft_fields import FLAG, TOKENS, Check


class TrainableTokens(PeftAdapter):
    """Trains the rows of the embeddings that belong to a few tokens, input and output, through
    PEFT: for new tokens (`new_tokens` of the family), or to give old ones another meaning. For
    tasks beyond that, lora trains new tokens too. Few parameters, and hardly any optimizer state;
    in memory and time, PEFT copies the embedding matrix in every forward pass.
    """

    peft_type = "TRAINABLE_TOKENS"
    trains_new_tokens = True
    can_be_sharded = False
    config_fields: ClassVar[Mapping[str, Check]] = {"token_indices": TOKENS, "init_weights": FLAG}
    deviations: ClassVar[dict[str, str]] = {
        "test_leaves_excluded_modules_alone": "It trains rows of the embeddings, and of the head.",
    }

    class Options(PluginOptions):
        model_config = ConfigDict(json_schema_extra={"examples": [{"tokens": ["a", "e"]}]})

        tokens: list[str] = Field(
            default_factory=list,
            description="Tokens of the vocabulary to train, besides the family's new_tokens.",
        )

    def objections(self, recipe: Resolved) -> Iterator[Problem]:
        yield from super().objections(recipe)
        for stage in recipe.stages:
            if stage.choice.plugin.head != "causal_lm":
                yield Problem(
                    self.at,
                    f"{stage.choice.entry.name} trains a new head, which {self.name} leaves out",
                    "set adapter: lora, which trains new tokens too",
                )

    def peft_config(self, request: AdapterRequest) -> Any:
        import peft

        from tunewright_hf.models.peft_model import task_type
        from tunewright_hf.models.peft_targets import embeddings

        loaded = request.loaded
        numbers = [*loaded.new_tokens, *(_number(loaded, token) for token in self.options.tokens)]
        if not numbers:
            raise RecipeError(
                "there are no tokens to train",
                place="adapter.tokens",
                hint="name some of the vocabulary, or add some: new_tokens of the family",
            )
        return peft.TrainableTokensConfig(
            token_indices=list(dict.fromkeys(numbers)),
            target_modules=embeddings(loaded.model),
            task_type=task_type(request),
            inference_mode=not request.trainable,
        )


def _number(loaded: LoadedModel, token: str) -> int:
    """Id of a token, written as the vocabulary or as text has it. Raises RecipeError."""
    if (number := loaded.tokenizer.get_vocab().get(token)) is not None:
        return int(number)
    found = loaded.tokenizer.encode(token, add_special_tokens=False)
    if len(found) != 1:
        raise RecipeError(
            f"{token!r} is {len(found)} tokens of the vocabulary",
            place="adapter.tokens",
            hint="add it: new_tokens of the family",
        )
    return int(found[0])
