"""Reward models, from preference pairs."""

from pydantic import Field

from tunewright import PluginOptions, Stage, hookimpl
from tunewright.types import RunContext, StageResult, TrainRequest
from tunewright_hf.training.metric_names import PAIR_REWARDS


class Reward(Stage):
    """Train a reward model that scores chosen answers above rejected ones (Bradley and Terry 1952;
    Ouyang et al. 2022, arXiv:2203.02155).

    The score is read at the last token of the answer, from a head `score`. If a row has a margin,
    the chosen answer should score higher by that much (Touvron et al. 2023, arXiv:2307.09288).
    """

    rows = "preference"
    eval_metrics = ("loss", *PAIR_REWARDS)
    head = "score"

    class Options(PluginOptions):
        center_coefficient: float = Field(0.0, ge=0)
        """Weight of the squared sum of both rewards, which keeps rewards centred at 0 (Eisenstein
        et al. 2023, arXiv:2312.09244). 0.01 is usual."""

    @hookimpl
    def train_stage(self, run: RunContext, request: TrainRequest) -> StageResult:
        from tunewright_reward.training import train

        return train(run, request, self.options, self.name)
