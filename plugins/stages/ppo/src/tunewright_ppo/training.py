"""Rollouts, and several steps on each."""

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tunewright.types import StageResult, TrainRequest
from tunewright_hf.losses.causal_lm import shift
from tunewright_hf.training.loop import moved
from tunewright_hf.training.online_rl import Prompt, PromptsTrainer, train_on_prompts
from tunewright_ppo.critic import NAME, ActorCritic
from tunewright_ppo.losses import gae, policy_loss, steered, value_loss

Batch = dict[str, Tensor]


def train(run: Any, request: TrainRequest, options: Any, stage: str) -> StageResult:
    """Train on prompts, and save. Raises as `train_on_prompts` does, and RunError where there can
    be no critic."""
    training, steps = request.training, options.ppo_epochs
    if training.save_steps:
        between = math.ceil(training.save_steps / steps) * steps
        request.training = training.model_copy(update={"save_steps": between})
    return train_on_prompts(run, request, options, stage, PpoTrainer, repeats=steps)


class PpoTrainer(PromptsTrainer):
    def __init__(self, run: Any, request: TrainRequest, *others: Any) -> None:
        self.actor_critic = ActorCritic(request.loaded.model)
        self.rollout: list[Batch] = []
        asked = request.stop_requested
        request.stop_requested = lambda: self.is_between_rollouts and asked()
        super().__init__(run, request, *others)
        self.save_stride = self.options.ppo_epochs
        self.progress["beta"] = self.options.beta
        self.divergence = torch.zeros(
            2, dtype=torch.float64
        )  # nats and answers of this rollout on this process

    @property
    def is_between_rollouts(self) -> bool:
        return self.state.global_step % self.options.ppo_epochs == 0

    def finished(self) -> None:
        weights = self.actor_critic.remove_head()
        if self.args.process_index == 0:
            save_file(weights, self.request.folder / f"{NAME}.safetensors")

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Tensor]:
        prompts = list(islice(epoch_iterator, num_batches))  # in each step of a rollout the same
        if self.is_between_rollouts:
            self.divergence.zero_()
            self.rollout = [self._answered(each) for each in prompts]
            self._whiten(self.rollout)
            self._steer()
        masks = [(batch["known"].sum(), batch["attention_mask"].sum()) for batch in self.rollout]
        sums = self.total(torch.tensor(masks).double().sum(0))
        self.progress["tokens"] += int(sums[1])
        return [dict(batch) for batch in self.rollout], sums[0]

    @torch.no_grad()
    def _answered(self, prompts: list[Prompt]) -> Batch:
        """A batch of answers to these prompts, with what policy, critic and rewards say of them."""
        options = self.options
        written, scores = self.answers(prompts, 1)
        batch: Batch = moved(self.padded([answer.row() for answer in written]), self.args.device)
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        known = shift(batch["labels"], None)[1]
        self.model.eval()
        with self.accelerator.autocast():
            logps, values, _ = self.actor_critic.logps_and_values(
                self.model, inputs, batch["labels"]
            )
        self.model.train()
        rewards = torch.zeros_like(logps)
        if options.beta:
            with self.reference() as reference:
                behind = logps - reference.logps(reference.model, inputs, batch["labels"])[0]
            rewards -= self.progress["beta"] * behind
            self.count("kl", behind.sum(1) / known.sum(1))
            self.divergence += torch.tensor([float(behind.sum()), len(behind)], dtype=torch.float64)
        last = batch["attention_mask"].sum(1) - 2  # where the last token of an answer is predicted
        rewards[torch.arange(len(last), device=last.device), last] += scores.to(rewards)
        advantages = gae(rewards, values, known, options.gamma, options.gae_lambda)
        batch |= {"known": known, "logps": logps, "values": values, "advantages": advantages}
        batch["returns"] = advantages + values
        return batch

    def _whiten(self, rollout: list[Batch]) -> None:
        """Bring the advantages of all tokens, on all processes, to mean 0 and variance 1."""
        sums = torch.zeros(3, dtype=torch.float64)
        for batch in rollout:
            found = batch["advantages"][batch["known"] > 0].double().cpu()
            sums += torch.stack([torch.ones_like(found), found, found**2]).sum(1)
        tokens, total, squares = self.total(sums).tolist()
        mean = total / tokens
        deviation = math.sqrt(max(0.0, squares / tokens - mean**2) + 1e-8)
        for batch in rollout:
            batch["advantages"] = (batch["advantages"] - mean) / deviation

    def _steer(self) -> None:
        """Set beta for the next rollout."""
        if (target := self.options.kl_target) is None:
            return
        self.count("beta", torch.tensor([self.progress["beta"]]))
        nats, answers = self.total(self.divergence).tolist()
        share = answers / self.options.kl_horizon
        self.progress["beta"] = steered(self.progress["beta"], nats / answers, target, share)

    def compute_loss(
        self,
        model: Any,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor:
        """The mean over the tokens of the rollout."""
        options, known = self.options, inputs["known"]
        batch = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        logps, values, auxiliary = self.actor_critic.logps_and_values(
            model, batch, inputs["labels"]
        )
        ratios = (logps - inputs["logps"]).exp()
        policy = policy_loss(ratios, inputs["advantages"], options.clip_range)
        value = value_loss(values, inputs["values"], inputs["returns"], options.value_clip_range)
        clipped = ((ratios - 1).abs() > options.clip_range).float()
        for name, each in (
            ("loss/policy", policy),
            ("loss/value", value),
            ("clipped_ratio", clipped),
        ):
            self.count(name, each.detach()[known > 0])
        loss = ((policy + options.value_weight * value) * known).sum()
        return loss * self.scale(num_items_in_batch) + auxiliary
