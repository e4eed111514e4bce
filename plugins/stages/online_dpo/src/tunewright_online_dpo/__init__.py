"""Online direct preference optimization, on prompts and reward functions."""

from typing import Literal

from pydantic import Field

from tunewright import hookimpl
from tunewright.types import RunContext, StageResult, TrainRequest
from tunewright_hf.training.rollout_options import EngineRolloutOptions, EngineRolloutStage


class OnlineDpo(EngineRolloutStage):
    """Generate two completions per prompt, rank them by their rewards, and make the better one
    likelier than the other, relative to a reference model (online DPO, Guo et al. 2024,
    arXiv:2402.04792).

    Each step trains once on completions of the current policy. Pairs whose rewards are equal have
    no better completion, and do not count in the loss.
    """

    class Options(EngineRolloutOptions):
        loss: Literal["sigmoid", "ipo"] = "sigmoid"
        """Loss of a pair, by the difference of the two completions' log-ratios to the reference,
        summed over their tokens. sigmoid: DPO (arXiv:2305.18290). ipo: squared distance of the
        difference from 1 / (2 beta) (arXiv:2310.12036); not per token, as in stage dpo."""
        beta: float = Field(0.1, gt=0)
        """Strength of the constraint to the reference: higher keeps the policy closer to it."""
        missing_eos_penalty: float | None = Field(None, gt=0)
        """Subtracted from the reward of a completion that was truncated at max_new_tokens. Default:
        length does not count."""

    @hookimpl
    def train_stage(self, run: RunContext, request: TrainRequest) -> StageResult:
        from tunewright_hf.training.engine_rollouts import train_with_engine
        from tunewright_online_dpo.training import OnlineDpoTrainer

        return train_with_engine(run, request, self.options, self.name, OnlineDpoTrainer)
