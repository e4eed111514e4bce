"""Supervised fine-tuning on conversations."""

from importlib.util import find_spec
from typing import Any, Literal

from pydantic import Field

from tunewright import PluginOptions, RecipeError, Stage, hookimpl
from tunewright.types import RunContext, StageResult, TrainRequest

#: metrics of generated answers
METRICS = ("exact_match", "rouge-1", "rouge-2", "rouge-l", "bleu-4")


class Sft(Stage):
    """Train on assistant messages: mean negative log-likelihood of their tokens, weighted by
    message."""

    rows = "messages"

    class Options(PluginOptions):
        packing: bool = False
        """Pack short conversations into rows of training.max_length tokens. They do not attend to
        each other."""
        loss: Literal["nll", "dft", "eaft"] = "nll"
        """Weight of each token's negative log-likelihood. nll: 1. dft: the token's own probability,
        so that unlikely tokens weigh less (Dynamic Fine-Tuning, arXiv:2508.05629). eaft: the
        entropy of the 20 most likely tokens divided by its maximum, so that answers which
        contradict a confident model weigh less (Entropy-Adaptive Fine-Tuning, arXiv:2601.02151).
        Evaluation reports nll with all of them."""

        predict_with_generate: bool = False
        """Generate at each evaluation: the last answer of each row is decoded greedily and compared
        with the one in the data, as exact_match, rouge-1, rouge-2, rouge-l and bleu-4, in percent.
        Needs the extra `metrics`: pip install 'tunewright-sft[metrics]'."""
        max_new_tokens: int = Field(256, ge=1)
        """Maximum tokens of an answer, with predict_with_generate."""

    def __init__(self, options: Any, name: str = "") -> None:
        super().__init__(options, name)
        if options.predict_with_generate and find_spec("sacrebleu") is None:
            hint = "pip install 'tunewright-sft[metrics]'"
            raise RecipeError(
                "sacrebleu is not installed", place="stage.predict_with_generate", hint=hint
            )

    @property
    def generates(self) -> bool:
        """With metrics of answers."""
        return self.options.predict_with_generate

    @property
    def eval_metrics(self) -> tuple[str, ...]:  # type: ignore[override]
        """Metrics of evaluation; those of answers only with predict_with_generate."""
        return ("loss", *(METRICS if self.options.predict_with_generate else ()))

    @hookimpl
    def train_stage(self, run: RunContext, request: TrainRequest) -> StageResult:
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
