"""Prompt tuning: trained tokens before every prompt."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from tunewright import PluginOptions
from tunewright.types import AdapterRequest
from tunewright_hf.models.peft import PromptAdapter
from tunewright_hf.models.peft_fields import PROMPT, Check, one_of


class PromptTuning(PromptAdapter):
    """Trains the embeddings of virtual tokens that precede every sequence (Lester et al. 2021,
    arXiv:2104.08691), through PEFT. The fewest parameters; it needs a large model, and a learning
    rate of about 1e-2 to 0.3. It cannot be merged."""

    peft_type = "PROMPT_TUNING"
    config_fields: ClassVar[Mapping[str, Check]] = {
        **PROMPT,
        "prompt_tuning_init": one_of("RANDOM", "SAMPLE_VOCAB"),
    }

    class Options(PluginOptions):
        virtual_tokens: int = Field(
            20, ge=1, le=100_000, description="Number of trained virtual tokens."
        )

    def peft_config(self, request: AdapterRequest) -> Any:
        import peft

        from tunewright_hf.models.peft_model import task_type

        return peft.PromptTuningConfig(
            num_virtual_tokens=self.options.virtual_tokens,
            task_type=task_type(request),
            inference_mode=not request.trainable,
        )
