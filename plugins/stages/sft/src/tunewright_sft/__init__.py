"""Supervised fine-tuning on conversations."""

from typing import Any

from tunewright import PluginOptions, Stage, hookimpl
from tunewright.types import StageResult, TrainRequest


class Sft(Stage):
    """Train on what assistants say: mean negative log-likelihood of their tokens, weighted by message."""

    rows = "messages"

    class Options(PluginOptions):
        packing: bool = False
        """put short conversations together into rows of training.max_length tokens; they do not see each
        other
        """

    @hookimpl
    def train_stage(self, run: Any, request: TrainRequest) -> StageResult:
        from tunewright_hf.trainer import train

        return train(run, request, stage=self.name, packing=self.options.packing, template=run.plugin("template"))
