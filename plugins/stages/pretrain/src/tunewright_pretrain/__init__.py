"""Continued pretraining on plain text."""

from typing import Any

from tunewright import PluginOptions, Stage, hookimpl
from tunewright.types import StageResult, TrainRequest


class Pretrain(Stage):
    """Train on every token of documents. The tokenizer's chat template stays as it was."""

    rows = "text"

    class Options(PluginOptions):
        packing: bool = True
        """Pack short documents into rows of training.max_length tokens. They do not attend to each
        other."""

    @hookimpl
    def train_stage(self, run: Any, request: TrainRequest) -> StageResult:
        from tunewright_hf.training.causal_lm import train

        return train(run, request, stage=self.name, packing=self.options.packing)
