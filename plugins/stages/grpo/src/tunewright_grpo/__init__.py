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
        """answers to each prompt: a group"""
        loss: Literal["dapo", "grpo", "dr_grpo"] = "dapo"
        """how tokens are averaged. dapo: all tokens of a step alike (arXiv:2503.14476). grpo:
        within each answer, then over answers, which favours short ones. dr_grpo: over
        max_new_tokens of every answer (arXiv:2503.20783)"""
        scale_rewards: Literal["group", "none"] = "group"
        """divide advantages by the standard deviation of their group, or not (arXiv:2503.20783)"""
        mask_truncated: bool = False
        """do not train on answers that were cut off at max_new_tokens"""
        beta: float = Field(0.0, ge=0)
        """weight of the KL divergence from the reference, estimated for each token (k3); 0: no
        reference is kept"""

    @hookimpl
    def train_stage(self, run: Any, request: TrainRequest) -> StageResult:
        from tunewright_grpo.training import GrpoTrainer
        from tunewright_hf.training.online_rl import train_on_prompts

        return train_on_prompts(run, request, self.options, self.name, GrpoTrainer)
