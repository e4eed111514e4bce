"""GRPO training: groups of completions per prompt."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunewright_grpo.advantage import (
    centred,
    deviation,
    overlong_penalty,
    parts,
    scaled,
    token_weights,
)
from tunewright_grpo.episodes import Episodes
from tunewright_grpo.importance import sampled_logps, truncated_ratios
from tunewright_grpo.losses import log_ratios, policy_loss
from tunewright_grpo.turns import TurnEncoder
from tunewright_hf.training.engine_rollouts import EngineTrainer
from tunewright_hf.training.online_rl import Prompt
from tunewright_hf.training.rollouts import Rollout, lengths
from tunewright_hf.training.stage_trainer import Batch, TrainingSetup


class GrpoTrainer(EngineTrainer):
    def __init__(self, setup: TrainingSetup, options: Any) -> None:
        super().__init__(setup, options)
        self.steps_per_rollout = options.num_iterations
        self.environment = options.open_environment(setup.run, setup.request.number - 1)
        if self.environment:
            turns = TurnEncoder(setup.run, self.tokenizer)
            most = options.max_new_tokens
            self.episodes = Episodes(self.environment, self.writer, turns, most)

    def close(self) -> None:
        """Release the engine and the environment."""
        super().close()
        if self.environment:
            self.environment.plugin.close()

    def write(
        self, rows: Sequence[dict[str, Any]], draws: Sequence[tuple[int, ...]]
    ) -> list[Rollout]:
        if not self.environment:
            return super().write(rows, draws)
        with self.autocast(), self.evaluation_mode():
            written = self.episodes.write(rows, draws)
        turns = [sum(each.role == "assistant" for each in one.messages) for one in written]
        self.count("completions/turns", torch.tensor(turns))
        return written

    # ---- rollouts --------------------------------------------------------------------------------

    def make_rollout(self, batches: list[list[Prompt]]) -> list[Batch]:
        rollout = [self._answered(prompts) for prompts in batches]
        self._compute_advantages(rollout)
        return rollout

    def _answered(self, prompts: list[Prompt]) -> Batch:
        """Batch of completions of these prompts, group by group, with their rewards."""
        options = self.options
        self.check_stop()
        written, rewards = self._groups(prompts)  # (groups, completions)
        kept = torch.tensor([answer.finished or not options.mask_truncated for answer in written])
        if options.dynamic_sampling:
            kept &= ~_alike(rewards).repeat_interleave(rewards.shape[1])
        tokens = lengths(written)
        batch = self.batch_of(written, parts(tokens[kept], options.loss))
        batch["rewards"] = rewards
        weights = token_weights(tokens, options.loss, options.max_new_tokens) * kept
        batch["weights"] = weights.float().to(self.device)
        if options.beta:
            batch["reference"] = self.reference_logps(batch)
        sampled = sampled_logps(written, batch["labels"].shape[1])
        if options.num_iterations > 1 or options.kl_in_reward or sampled is not None:
            batch["old"] = self._old_logps(batch)
        if sampled is not None:
            batch["correction"] = self._correction(batch, sampled.to(self.device))
        return batch

    def _groups(self, prompts: list[Prompt]) -> tuple[list[Rollout], Tensor]:
        """Completions of these prompts, and their rewards (groups, completions). Groups whose
        rewards are all alike are replaced by those of other prompts, as often as dynamic_sampling
        says."""
        each = self.options.num_generations
        written, rewards = self.answers(prompts, each)
        rewards = rewards.view(-1, each)
        for attempt in range(1, self.options.dynamic_sampling + 1):
            if not len(places := _alike(rewards).nonzero().flatten().tolist()):
                break
            # two groups may get the same prompt: the row that is replaced tells them apart
            rows = [prompts[place][0] for place in places]
            others = [self._another(row, attempt) for row in rows]
            found, scores = self.answers(others, each, [(attempt, row) for row in rows])
            for number, place in enumerate(places):
                written[place * each : (place + 1) * each] = found[number * each :][:each]
            rewards[places] = scores.view(-1, each)
        if each > 1:
            self.count("groups/alike", _alike(rewards).double())
            self.count("reward_std", rewards.std(1))
        return written, rewards

    def _another(self, row: int, attempt: int) -> Prompt:
        """A prompt at random in place of that of a row."""
        numbers = np.random.default_rng((self.seed, self.step, row, attempt))
        prompt: Prompt = self.train_rows[int(numbers.integers(len(self.train_rows)))]
        return prompt

    def shaping(self, written: Any) -> dict[str, Tensor]:
        options = self.options
        if not options.overlong_buffer:
            return {}
        penalty = overlong_penalty(
            lengths(written), options.max_new_tokens, options.overlong_buffer
        )
        return {"overlong": (options.overlong_penalty or 1.0) * penalty}

    def _old_logps(self, batch: Batch) -> Tensor:
        """Log-probabilities of the completions (B, T) under the policy that generated them."""
        self.model.eval()
        with self.autocast():
            logps = self.causal_loss.logps(self.model, batch["inputs"], batch["labels"])[0]
        self.model.train()
        return logps

    def _correction(self, batch: Batch, sampled: Tensor) -> Tensor:
        """Factors (B, T) of each token's loss, for what the engine has sampled otherwise."""
        known = (batch["known"] > 0) & ~sampled.isnan()
        difference = batch["old"] - sampled
        self.count("sampling/logp_difference", difference[known].abs())
        ratios = truncated_ratios(batch["old"], sampled, self.options.importance_cap or 2.0)
        self.count("sampling/importance_ratio", ratios[known])
        return ratios

    def _compute_advantages(self, rollout: list[Batch]) -> None:
        """Set `advantages` (B, T) of each batch, from its rewards."""
        options = self.options
        if options.kl_in_reward:
            for batch in rollout:
                self._subtract_kl(batch)
        rewards = [batch.pop("rewards") for batch in rollout]
        every = torch.cat([each.flatten() for each in rewards])
        of_step = deviation(every, self.total) if options.scale == "batch" else 0.0
        for batch, own in zip(rollout, rewards, strict=True):
            found = scaled(centred(own, options.advantage), own, options.scale, of_step)
            by_token = batch.pop("token_rewards", 0.0)
            spread = found.flatten().float().to(self.device)[:, None]
            batch["advantages"] = (spread + by_token) * batch["known"]
        if options.advantage.startswith("reinforce_plus_plus"):
            self.normalize_advantages(rollout)

    def _subtract_kl(self, batch: Batch) -> None:
        """Subtract beta × KL divergence from the batch's rewards; for reinforce_plus_plus, set
        `token_rewards` (B, T) in its place: what is still to come, from each token on."""
        kl = (batch["old"] - batch["reference"]) * batch["known"]
        self._count_kl(kl, batch["known"])
        penalty = self.options.beta * kl
        if self.options.advantage == "reinforce_plus_plus":
            batch["token_rewards"] = -penalty.flip(1).cumsum(1).flip(1)
        else:
            rewards = batch["rewards"]
            batch["rewards"] = rewards - penalty.sum(1).cpu().view(rewards.shape)

    # ---- the loss --------------------------------------------------------------------------------

    def compute_loss(self, forward: Any, batch: Batch, scale: float) -> Tensor:
        """Policy loss, plus beta times the KL divergence, minus the entropy bonus, over tokens."""
        options, known = self.options, batch["known"]
        if options.entropy_weight:
            logps, entropies, auxiliary = self.causal_loss.logps_and_entropies(
                forward, batch["inputs"], batch["labels"]
            )
        else:
            logps, auxiliary = self.causal_loss.logps(forward, batch["inputs"], batch["labels"])
        old = batch["old"] if options.num_iterations > 1 else logps.detach()
        ratios = log_ratios(logps, old, known, options.importance_sampling_level).exp()
        loss, clipped = policy_loss(ratios, logps, batch["advantages"], options)
        if "correction" in batch:
            loss = loss * batch["correction"]
        if options.num_iterations > 1:
            for name, each in clipped.items():
                self.count(name, each[known > 0].float())
        if options.beta and not options.kl_in_reward:
            behind = batch["reference"] - logps
            kl = behind.exp() - behind - 1
            loss = loss + options.beta * (kl * ratios if options.unbiased_kl else kl)
            self._count_kl(kl.detach(), known)
        if options.entropy_weight:
            loss = loss - options.entropy_weight * entropies
            self.count("entropy", entropies.detach()[known > 0])
        return (loss * known * batch["weights"][:, None]).sum() * scale + auxiliary

    def _count_kl(self, kl: Tensor, known: Tensor) -> None:
        """Add the means over each completion's tokens (B, T) to the metric."""
        self.count("kl", (kl * known).sum(1) / known.sum(1))


def _alike(rewards: Tensor) -> Tensor:
    """True for each group (groups, completions) whose rewards are all the same."""
    return (rewards == rewards[:, :1]).all(1)
