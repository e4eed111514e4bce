"""PPO training: rollouts, and several steps on each."""

from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tunewright.types import RunContext, StageResult, TrainRequest
from tunewright_hf.losses.causal_lm import CausalLoss
from tunewright_hf.losses.sequence_scores import last_known
from tunewright_hf.training.online_rl import Prompt, PromptsTrainer, train_on_prompts
from tunewright_hf.training.rollouts import lengths
from tunewright_hf.training.stage_trainer import Batch, TrainingSetup
from tunewright_ppo.critic import NAME, ActorCritic
from tunewright_ppo.losses import gae, policy_loss, steered, value_loss


def train(run: RunContext, request: TrainRequest, options: Any, stage: str) -> StageResult:
    """Train on prompts, and save. Raises as `train_on_prompts` does, and RunError if the model
    cannot have a critic."""
    return train_on_prompts(run, request, options, stage, PpoTrainer, repeats=options.ppo_epochs)


class PpoTrainer(PromptsTrainer):
    actor_critic: ActorCritic

    def __init__(self, setup: TrainingSetup, options: Any) -> None:
        super().__init__(setup, options)
        self.steps_per_rollout = options.ppo_epochs
        self.progress["beta"] = options.beta
        # KL in nats and number of completions of this rollout, on this rank
        self.divergence = torch.zeros(2, dtype=torch.float64)

    def make_loss(self) -> CausalLoss:
        self.actor_critic = ActorCritic(self.model)
        self.sharding.add(self.actor_critic.head)
        return self.actor_critic

    def finished(self) -> None:
        self.sharding.reshard(self.model)
        head = self.actor_critic.remove_head()
        weights = {
            name: self.sharding.full_tensor(each).float().cpu()
            for name, each in head.named_parameters()
        }
        if self.rank == 0:
            self.request.folder.mkdir(parents=True, exist_ok=True)
            save_file(weights, self.request.folder / f"{NAME}.safetensors")

    def make_rollout(self, batches: list[list[Prompt]]) -> list[Batch]:
        self.divergence.zero_()
        rollout = [self._answered(prompts) for prompts in batches]
        self.normalize_advantages(rollout)
        self._steer()
        return rollout

    def _answered(self, prompts: list[Prompt]) -> Batch:
        """Batch of completions of these prompts, with log-probabilities, values and rewards."""
        options = self.options
        self.check_stop()
        written, scores = self.answers(prompts, 1)
        batch = self.batch_of(written, float(lengths(written).sum()))
        inputs, known = batch["inputs"], batch["known"]
        self.model.eval()
        with self.autocast():
            logps, values, _ = self.actor_critic.logps_and_values(
                self.model, inputs, batch["labels"]
            )
        self.model.train()
        rewards = torch.zeros_like(logps)
        if options.beta:
            behind = logps - self.reference_logps(batch)
            rewards -= self.progress["beta"] * behind
            self.count("kl", behind.sum(1) / known.sum(1))
            self.divergence += torch.tensor([float(behind.sum()), len(behind)], dtype=torch.float64)
        # position that predicts the last token of a completion
        last = last_known(known)
        rewards[torch.arange(len(last), device=last.device), last] += scores.to(rewards)
        advantages = gae(rewards, values, known, options.gamma, options.gae_lambda)
        batch |= {"logps": logps, "values": values, "advantages": advantages}
        batch["returns"] = advantages + values
        return batch

    def _steer(self) -> None:
        """Adapt beta for the next rollout."""
        if (target := self.options.kl_target) is None:
            return
        self.count("beta", torch.tensor([self.progress["beta"]]))
        nats, answers = self.total(self.divergence).tolist()
        share = answers / self.options.kl_horizon
        self.progress["beta"] = steered(self.progress["beta"], nats / answers, target, share)

    def compute_loss(self, forward: Any, batch: Batch, scale: float) -> Tensor:
        """PPO loss: the mean over the tokens of the rollout."""
        options, known = self.options, batch["known"]
        logps, values, auxiliary = self.actor_critic.logps_and_values(
            forward, batch["inputs"], batch["labels"]
        )
        ratios = (logps - batch["logps"]).exp()
        policy = policy_loss(ratios, batch["advantages"], options.clip_range)
        value = value_loss(values, batch["values"], batch["returns"], options.value_clip_range)
        clipped = ((ratios - 1).abs() > options.clip_range).float()
        for name, each in (
            ("loss/policy", policy),
            ("loss/value", value),
            ("clipped_ratio", clipped),
        ):
            self.count(name, each.detach()[known > 0])
        loss = ((policy + options.value_weight * value) * known).sum()
        return loss * scale + auxiliary
