"""Fine-tuning and preference optimization in one, without a reference."""

from typing import Any

from pydantic import Field

from tunewright import PluginOptions, Stage, hookimpl
from tunewright.types import StageResult, TrainRequest


class Orpo(Stage):
    """Learn the chosen answers, and raise their odds over the rejected ones (ORPO, Hong et al.
    2024, arXiv:2403.07691). The prompt itself is not learned. A reward is beta times the mean
    log-probability of an answer's tokens.
    """

    rows = "preference"

    class Options(PluginOptions):
        beta: float = Field(0.1, gt=0)
        """Weight of the odds-ratio loss, added to the chosen completion's mean negative
        log-likelihood per token. The paper calls it lambda."""

    @hookimpl
    def train_stage(self, run: Any, request: TrainRequest) -> StageResult:
        from tunewright_orpo.training import train

        return train(run, request, self.options, self.name)
