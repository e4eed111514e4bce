"""Proximal policy optimization, on prompts and reward functions."""

from pydantic import Field, model_validator

from tunewright import hookimpl
from tunewright.types import RunContext, StageResult, TrainRequest
from tunewright_hf.training.rollout_options import RolloutOptions, RolloutStage


class Ppo(RolloutStage):
    """Generate a completion per prompt, score it, and train several steps on the advantages over a
    critic (PPO, Schulman et al. 2017, arXiv:1707.06347; for language models Ouyang et al. 2022,
    arXiv:2203.02155).

    A rollout is the prompts of one step (per_device_train_batch_size × gradient_accumulation_steps
    × processes) with their completions. The critic is a linear layer on the policy's last hidden
    states; it is saved beside the result, as value_head.safetensors. training.max_steps is rounded
    up to a multiple of ppo_epochs.
    """

    class Options(RolloutOptions):
        ppo_epochs: int = Field(4, ge=1)
        """Optimizer steps per rollout, each over the whole rollout."""
        clip_range: float = Field(0.2, gt=0)
        """Clip range of the ratio of a token's probability to its probability in the rollout,
        around 1."""
        value_clip_range: float = Field(0.2, gt=0)
        """Clip range of values around their value in the rollout."""
        value_weight: float = Field(0.1, ge=0)
        """Weight of the value loss."""
        gamma: float = Field(1.0, gt=0, le=1)
        """Discount factor of rewards."""
        gae_lambda: float = Field(0.95, ge=0, le=1)
        """Lambda of generalized advantage estimation (arXiv:1506.02438). 0: trust the value model.
        1: trust the rewards."""
        beta: float = Field(0.05, ge=0)
        """Weight of the KL divergence from the reference, subtracted from the reward per token
        (k1). 0: no reference is loaded."""
        kl_target: float | None = Field(None, gt=0)
        """Target of the KL divergence of a completion from the reference, in nats: beta is adapted
        to it after each rollout (Ziegler et al. 2019, arXiv:1909.08593). Default: beta is
        constant."""
        kl_horizon: int = Field(10_000, gt=0)
        """With kl_target: completions in which beta can change by about a fifth."""

        @model_validator(mode="after")
        def _fits(self) -> "Ppo.Options":
            if self.kl_target is not None and not self.beta:
                raise ValueError("kl_target needs a beta above 0 to begin with")
            return self

    @hookimpl
    def train_stage(self, run: RunContext, request: TrainRequest) -> StageResult:
        from tunewright_ppo.training import train

        return train(run, request, self.options, self.name)
