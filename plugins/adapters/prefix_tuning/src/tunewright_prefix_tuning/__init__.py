"""Prefix tuning: trained keys and values before every prompt."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from tunewright import PluginOptions, Problem
from tunewright.types import AdapterRequest
from tunewright_hf.models.peft import PromptAdapter
from tunewright_hf.models.peft_fields import FLAG, PROMPT, Check, whole

if TYPE_CHECKING:
    from tunewright.check import Resolved


class PrefixTuning(PromptAdapter):
    """Trains keys and values that precede every sequence in all layers (Li and Liang 2021,
    arXiv:2101.00190), through PEFT. Stronger than prompt tuning, with more parameters. It cannot be
    merged."""

    peft_type = "PREFIX_TUNING"
    uses_cache = True
    config_fields: ClassVar[Mapping[str, Check]] = {
        **PROMPT,
        "encoder_hidden_size": whole(1, 1_000_000),
        "prefix_projection": FLAG,
    }

    class Options(PluginOptions):
        virtual_tokens: int = Field(
            20, ge=1, le=100_000, description="Number of trained virtual tokens."
        )
        projection: bool = Field(
            False, description="Train a small MLP that makes keys and values (the paper's way)."
        )

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        yield from super().objections(recipe)
        for stage in recipe.stages:
            if stage.training.activation_checkpointing:
                yield Problem(
                    stage.place("activation_checkpointing"),
                    f"recomputes layers, and {self.name} gives them keys and values only once",
                    "set false, or adapter: prompt_tuning",
                )

    def peft_config(self, request: AdapterRequest) -> Any:
        import peft

        from tunewright_hf.models.peft_model import task_type

        return peft.PrefixTuningConfig(
            num_virtual_tokens=self.options.virtual_tokens,
            prefix_projection=self.options.projection,
            task_type=task_type(request),
            inference_mode=not request.trainable,
        )
