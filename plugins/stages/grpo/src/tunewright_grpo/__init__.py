"""Group relative policy optimization, on prompts and reward functions."""

from typing import Any, Literal

from pydantic import Field

from tunewright import hookimpl
from tunewright.types import StageResult, TrainRequest
from tunewright_hf.training.rollout_options import RolloutOptions, RolloutStage


class Grpo(RolloutStage):
    """Write several answers to each prompt, reward them, and make those above their group's mean
    likelier (GRPO, Shao et al. 2024, arXiv:2402.03300).

    Every step trains once on answers that the model has just written. So the policy that wrote them
    is the one that is trained, their ratio is 1, and clipping, which the method has for further
    steps on the same answers, never acts.
    """

    class Options(RolloutOptions):
        num_generations: int = Field(8, ge=2)
        """Completions per prompt, which make up a group."""
        loss: Literal["dapo", "grpo", "dr_grpo"] = "dapo"
        """How the loss is averaged. dapo: over all tokens of a step (arXiv:2503.14476). grpo: over
        each completion's tokens, then over completions, which favours short ones. dr_grpo: over
        max_new_tokens of every completion (arXiv:2503.20783)."""
        scale_rewards: Literal["group", "none"] = "group"
        """group: divide advantages by the standard deviation of their group. none: do not
        (arXiv:2503.20783)."""
        mask_truncated: bool = False
        """Exclude completions that were truncated at max_new_tokens from the loss."""
        beta: float = Field(0.0, ge=0)
        """Weight of the KL divergence from the reference, estimated per token (k3). 0: no reference
        is loaded."""

    @hookimpl
    def train_stage(self, run: Any, request: TrainRequest) -> StageResult:
        from tunewright_grpo.training import GrpoTrainer
        from tunewright_hf.training.online_rl import train_on_prompts

        return train_on_prompts(run, request, self.options, self.name, GrpoTrainer)
