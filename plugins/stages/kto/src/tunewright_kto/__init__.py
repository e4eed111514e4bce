"""Preference optimization on single answers that are good or bad."""

from typing import Any, Literal

from pydantic import Field

from tunewright import hookimpl
from tunewright.types import StageResult, TrainRequest
from tunewright_hf.training.reference_options import ReferenceOptions, ReferenceStage


class Kto(ReferenceStage):
    """Make good answers likelier and bad ones less likely, each on its own, held against a
    reference (KTO, Ethayarajh et al. 2024, arXiv:2402.01306).

    A reward is beta times the log-probability of an answer minus that of the reference. Rewards are
    compared with the divergence from the reference, which is estimated in every step from its
    prompts with other rows' answers.
    """

    rows = "unpaired"

    class Options(ReferenceOptions):
        loss: Literal["kto", "apo_zero_unpaired"] = "kto"
        """kto: the loss of the paper. apo_zero_unpaired: compares rewards with 0 and needs no
        estimate of the KL divergence (arXiv:2408.06266)."""
        beta: float = Field(0.1, gt=0)
        """Strength of the constraint to the reference: higher keeps the policy closer to it."""
        desirable_weight: float = Field(1.0, ge=0)
        """Weight of the loss of desirable completions. Raise it where they are fewer, so that
        weight times number is about the same for both."""
        undesirable_weight: float = Field(1.0, ge=0)
        """Weight of the loss of undesirable completions."""

    @hookimpl
    def train_stage(self, run: Any, request: TrainRequest) -> StageResult:
        from tunewright_kto.training import train

        return train(run, request, self.options, self.name)
