"""Supervised fine-tuning on conversations."""

from importlib.util import find_spec
from typing import Any, Literal

from pydantic import Field

from tunewright import PluginOptions, RecipeError, Stage, hookimpl
from tunewright.types import StageResult, TrainRequest


class Sft(Stage):
    """Train on what assistants say: mean negative log-likelihood of their tokens, weighted by
    message."""

    rows = "messages"

    class Options(PluginOptions):
        packing: bool = False
        """put short conversations together into rows of training.max_length tokens; they do not see
        each other
        """
        loss: Literal["nll", "dft", "eaft"] = "nll"
        """what counts of each token's negative log-likelihood. nll: all of it. dft: the share that
        is the token's own probability, so that unlikely tokens pull less (Dynamic Fine-Tuning,
        arXiv:2508.05629). eaft: the share that is the entropy of the 20 likeliest tokens over its
        maximum, so that answers which contradict what the model is sure of pull less
        (Entropy-Adaptive Fine-Tuning, arXiv:2601.02151). Evaluation reports nll with all of them
        """

        predict_with_generate: bool = False
        """at each evaluation, also let the model answer: the last answer of each row is written
        greedily and held against the one in the data, as exact_match, rouge-1, rouge-2, rouge-l and
        bleu-4, in percent. Needs the extra `metrics`: pip install 'tunewright-sft[metrics]'"""
        max_new_tokens: int = Field(256, ge=1)
        """with predict_with_generate, the longest answer, in tokens"""

    def __init__(self, options: Any, name: str = "") -> None:
        super().__init__(options, name)
        if options.predict_with_generate and find_spec("sacrebleu") is None:
            hint = "pip install 'tunewright-sft[metrics]'"
            raise RecipeError(
                "sacrebleu is not installed", place="stage.predict_with_generate", hint=hint
            )

    @hookimpl
    def train_stage(self, run: Any, request: TrainRequest) -> StageResult:
        from tunewright_hf.training.causal_lm import train
        from tunewright_sft.losses import LOSSES

        packing, template = self.options.packing, run.plugin("template")
        token_weighting = LOSSES[self.options.loss]
        extra_eval_metrics = None
        if self.options.predict_with_generate:
            from tunewright_sft.generation import Generation

            extra_eval_metrics = Generation(
                request, template.info.stop, self.options.max_new_tokens
            )
        return train(
            run,
            request,
            stage=self.name,
            packing=packing,
            template=template,
            token_weighting=token_weighting,
            extra_eval_metrics=extra_eval_metrics,
        )
