"""Reward models from pairs of answers."""

from typing import Any

from pydantic import Field

from tunewright import PluginOptions, Stage, hookimpl
from tunewright.types import StageResult, TrainRequest


class Reward(Stage):
    """Give the better of two answers the higher number (Bradley and Terry 1952; Ouyang et al. 2022,
    arXiv:2203.02155).

    The number is read at the last token of the answer, from a head `score`. Where a row has a
    margin, the chosen answer is to be better by that much (Touvron et al. 2023, arXiv:2307.09288).
    """

    rows = "preference"
    head = "score"

    class Options(PluginOptions):
        center_coefficient: float = Field(0.0, ge=0)
        """Weight of the squared sum of both rewards, which keeps rewards centred at 0 (Eisenstein
        et al. 2023, arXiv:2312.09244). 0.01 is usual."""

    @hookimpl
    def train_stage(self, run: Any, request: TrainRequest) -> StageResult:
        from tunewright_reward.training import train

        return train(run, request, self.options, self.name)
