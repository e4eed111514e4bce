"""Continued pretraining on plain text."""

from tunewright import PluginOptions, Stage, hookimpl
from tunewright.types import RunContext, StageResult, TrainRequest


class Pretrain(Stage):
    """Train on every token of documents. The tokenizer keeps its chat template."""

    rows = "text"
    eval_metrics = ("loss",)

    class Options(PluginOptions):
        packing: bool = True
        """Pack short documents into rows of training.max_length tokens. They do not attend to each
        other."""

    @hookimpl
    def train_stage(self, run: RunContext, request: TrainRequest) -> StageResult:
        from tunewright_hf.training.causal_lm import train

        return train(run, request, stage=self.name, packing=self.options.packing)
