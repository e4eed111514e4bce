"""Contrastive preference optimization, without a reference."""

from typing import Literal

from pydantic import Field, model_validator

from tunewright import PluginOptions, Stage, hookimpl
from tunewright.types import RunContext, StageResult, TrainRequest
from tunewright_hf.training.metric_names import PAIR_LOGPS, PAIR_REWARDS


class Cpo(Stage):
    """Make chosen answers likelier than rejected ones, and train on them (CPO, Xu et al. 2024,
    arXiv:2401.08417). The reward of an answer is beta times its log-probability, summed over its
    tokens: DPO's with an even reference."""

    rows = "preference"
    eval_metrics = ("loss", *PAIR_REWARDS, *PAIR_LOGPS)

    class Options(PluginOptions):
        loss: Literal["sigmoid", "hinge", "ipo"] = "sigmoid"
        """sigmoid: that of the paper. hinge: SLiC (arXiv:2305.10425). ipo: squared distance of the
        margin per token from 1 / (2 beta) (arXiv:2310.12036)."""
        beta: float = Field(0.1, gt=0)
        """Scale of rewards."""
        sft_weight: float = Field(1.0, ge=0)
        """Weight of the chosen completion's mean negative log-likelihood per token, added to the
        loss."""
        label_smoothing: float = Field(0.0, ge=0, lt=0.5)
        """Share of the pairs whose labels are assumed to be swapped, for sigmoid."""

        @model_validator(mode="after")
        def _fits(self) -> "Cpo.Options":
            if self.label_smoothing and self.loss != "sigmoid":
                raise ValueError(f"label_smoothing does nothing for {self.loss}: it is for sigmoid")
            return self

    @hookimpl
    def train_stage(self, run: RunContext, request: TrainRequest) -> StageResult:
        from tunewright_cpo.training import train

        return train(run, request, self.options, self.name)
