"""Direct preference optimization, on preference pairs."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tunewright import hookimpl
from tunewright.types import RunContext, StageResult, TrainRequest
from tunewright_hf.training.metric_names import PAIR_LOGPS, PAIR_REWARDS
from tunewright_hf.training.reference_options import ReferenceOptions, ReferenceStage

#: losses that use label_smoothing
SMOOTHED = ("sigmoid", "robust", "exo_pair")

Loss = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "robust",
    "bco_pair",
    "exo_pair",
    "nca_pair",
    "apo_zero",
    "apo_down",
    "sppo_hard",
    "sigmoid_norm",
]


class Dpo(ReferenceStage):
    """Make chosen answers likelier than rejected ones, relative to a reference model (DPO, Rafailov
    et al. 2023, arXiv:2305.18290, and later losses).

    The reward of an answer is beta times its log-probability minus that of the reference, summed
    over its tokens.
    """

    rows = "preference"
    eval_metrics = ("loss", *PAIR_REWARDS, *PAIR_LOGPS)

    class Options(ReferenceOptions):
        loss: Loss | Annotated[dict[Loss, Annotated[float, Field(gt=0)]], Field(min_length=1)] = (
            "sigmoid"
        )
        """Loss, or several with their weights: {sigmoid: 0.8, bco_pair: 0.2} with sft_weight 1 is
        MPO (arXiv:2411.10442). sigmoid: DPO. hinge: SLiC (arXiv:2305.10425). ipo: squared distance
        of the margin per token from 1 / (2 beta) (arXiv:2310.12036). robust: unbiased where labels
        are flipped (arXiv:2403.00409). bco_pair: each completion on its own against the running
        mean reward (arXiv:2404.04656). exo_pair (arXiv:2402.00856). nca_pair (arXiv:2402.05369).
        apo_zero, apo_down: for chosen completions that are better, or worse, than the model's own
        (arXiv:2408.06266). sppo_hard (arXiv:2405.00675). sigmoid_norm: DPO on log-probabilities per
        token."""
        beta: float = Field(0.1, gt=0)
        """Strength of the constraint to the reference: higher keeps the policy closer to it."""
        label_smoothing: float = Field(0.0, ge=0, lt=0.5)
        """Share of the pairs whose labels are assumed to be swapped, for sigmoid (conservative
        DPO), robust, and exo_pair, which needs a value above 0."""
        ld_alpha: float | None = Field(None, ge=0, le=1)
        """Weight of a completion's tokens beyond the length of the shorter one (LD-DPO,
        arXiv:2409.06411). Default: 1."""
        sft_weight: float = Field(0.0, ge=0)
        """Weight of the chosen completion's mean negative log-likelihood per token, added to the
        loss (RPO, arXiv:2404.19733)."""

        @model_validator(mode="after")
        def _fits(self) -> "Dpo.Options":
            if self.label_smoothing and not set(self.losses) & set(SMOOTHED):
                names = " and ".join(self.losses)
                raise ValueError(
                    f"label_smoothing does nothing for {names}: it is for {', '.join(SMOOTHED)}"
                )
            if "exo_pair" in self.losses and not self.label_smoothing:
                raise ValueError("exo_pair needs label_smoothing above 0, such as 0.001")
            return self

        @property
        def losses(self) -> dict[Loss, float]:
            """Weights of losses by name."""
            return {self.loss: 1.0} if isinstance(self.loss, str) else self.loss

    @hookimpl
    def train_stage(self, run: RunContext, request: TrainRequest) -> StageResult:
        from tunewright_dpo.training import train

        return train(run, request, self.options, self.name)
