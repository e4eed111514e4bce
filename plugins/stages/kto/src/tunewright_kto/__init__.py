"""Preference optimization on single answers labelled good or bad."""

from typing import Literal

from pydantic import Field

from tunewright import hookimpl
from tunewright.types import RunContext, StageResult, TrainRequest
from tunewright_hf.training.reference_options import ReferenceOptions, ReferenceStage


class Kto(ReferenceStage):
    """Make good answers likelier and bad ones less likely, each by itself, relative to a reference
    model (KTO, Ethayarajh et al. 2024, arXiv:2402.01306).

    The reward of an answer is beta times its log-probability minus that of the reference. Rewards
    are compared with the KL divergence from the reference, which is estimated in every step on
    prompts with mismatched answers.
    """

    rows = "unpaired"
    eval_metrics = (
        "loss",
        "rewards/chosen",
        "rewards/rejected",
        "rewards/margins",
        "logps/chosen",
        "logps/rejected",
        "kl",
    )

    class Options(ReferenceOptions):
        loss: Literal["kto", "apo_zero_unpaired"] = "kto"
        """kto: the loss of the paper. apo_zero_unpaired: compares rewards with 0 and needs no
        estimate of the KL divergence (arXiv:2408.06266)."""
        beta: float = Field(0.1, gt=0)
        """Strength of the constraint to the reference: higher keeps the policy closer to it."""
        desirable_weight: float = Field(1.0, ge=0)
        """Weight of the loss of desirable completions. Raise it if they are fewer, so that
        weight times number is about the same for both."""
        undesirable_weight: float = Field(1.0, ge=0)
        """Weight of the loss of undesirable completions."""

    @hookimpl
    def train_stage(self, run: RunContext, request: TrainRequest) -> StageResult:
        from tunewright_kto.training import train

        return train(run, request, self.options, self.name)
