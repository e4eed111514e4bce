"""Preference optimization without a reference, by log-probability per token."""

from pydantic import Field

from tunewright import PluginOptions, Stage, hookimpl
from tunewright.types import RunContext, StageResult, TrainRequest
from tunewright_hf.training.metric_names import PAIR_LOGPS, PAIR_REWARDS


class Simpo(Stage):
    """Make chosen answers likelier per token than rejected ones, by a margin (SimPO, Meng et al.
    2024, arXiv:2405.14734). The reward of an answer is beta times the mean log-probability of its
    tokens."""

    rows = "preference"
    eval_metrics = ("loss", *PAIR_REWARDS, *PAIR_LOGPS)

    class Options(PluginOptions):
        beta: float = Field(2.0, gt=0)
        """Scale of rewards."""
        gamma: float = Field(1.0, ge=0)
        """Target margin between the rewards of the chosen and the rejected completion."""
        label_smoothing: float = Field(0.0, ge=0, lt=0.5)
        """Share of the pairs whose labels are assumed to be swapped."""
        sft_weight: float = Field(0.0, ge=0)
        """Weight of the chosen completion's mean negative log-likelihood per token, added to the
        loss (CPO-SimPO)."""

    @hookimpl
    def train_stage(self, run: RunContext, request: TrainRequest) -> StageResult:
        from tunewright_simpo.training import train

        return train(run, request, self.options, self.name)
