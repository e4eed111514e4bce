"""Online DPO training: two completions per prompt, the better one first."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tunewright_hf.training.engine_rollouts import EngineTrainer
from tunewright_hf.training.online_rl import Prompt
from tunewright_hf.training.preference import pair_metrics
from tunewright_hf.training.rollouts import Rollout
from tunewright_hf.training.stage_trainer import Batch
from tunewright_online_dpo.losses import LOSSES


class OnlineDpoTrainer(EngineTrainer):
    def make_rollout(self, batches: list[list[Prompt]]) -> list[Batch]:
        return [self._ranked(prompts) for prompts in batches]

    def _ranked(self, prompts: list[Prompt]) -> Batch:
        """Batch of two completions of each prompt, side by side, that with the higher reward first;
        `differ` (pairs): 1 where the rewards differ, else 0."""
        self.check_stop()
        written, rewards = self.answers(prompts, 2)
        rewards = rewards.view(-1, 2)
        differ = rewards[:, 0] != rewards[:, 1]
        self.count("groups/alike", (~differ).double())
        self.count("reward_margin", (rewards[:, 0] - rewards[:, 1]).abs())
        better = rewards.argmax(1).tolist()
        ranked = [
            written[2 * pair + place]
            for pair, first in enumerate(better)
            for place in (first, 1 - first)
        ]
        batch = self.batch_of(ranked, float(differ.sum()))
        batch["differ"] = differ.float().to(self.device)
        batch["reference"] = self.reference_logps(batch).sum(1)
        return batch

    def shaping(self, written: Sequence[Rollout]) -> dict[str, Tensor]:
        if (penalty := self.options.missing_eos_penalty) is None:
            return {}
        missing = torch.tensor([not answer.finished for answer in written], dtype=torch.float64)
        return {"missing_eos": -penalty * missing}

    def compute_loss(self, forward: Any, batch: Batch, scale: float) -> Tensor:
        """Sum over the pairs whose rewards differ, times scale."""
        options, differ = self.options, batch["differ"]
        logps, auxiliary = self.causal_loss.logps(forward, batch["inputs"], batch["labels"])
        sums = logps.sum(1)
        ratios = sums - batch["reference"]
        self.count("kl", ratios.detach() / batch["known"].sum(1))
        policy, ratios = sums.view(-1, 2).T, ratios.view(-1, 2).T  # (2, pairs)
        metrics = pair_metrics(options.beta * ratios.detach(), policy.detach())
        for name, each in metrics.items():
            self.count(name, each[differ > 0])
        loss = LOSSES[options.loss](ratios[0] - ratios[1], options.beta)
        return (loss * differ).sum() * scale + auxiliary
