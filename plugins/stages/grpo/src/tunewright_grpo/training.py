"""GRPO training: groups of completions per prompt."""

from typing import Any

import torch
from torch import Tensor

from tunewright_grpo.advantage import advantages, parts, token_weights
from tunewright_hf.batching import collators
from tunewright_hf.losses.causal_lm import shift
from tunewright_hf.training.online_rl import Prompt, PromptsTrainer, lengths
from tunewright_hf.training.stage_trainer import Batch


class GrpoTrainer(PromptsTrainer):
    def prepare_step(self, batches: list[list[Prompt]]) -> tuple[list[Batch], float]:
        made = [self._answered(prompts) for prompts in batches]
        counts = [sum(batch[name] for batch in made) for name in ("parts", "tokens")]
        weight, tokens = self.total(torch.tensor(counts).double()).tolist()
        self.progress["tokens"] += int(tokens)
        return made, weight

    def _answered(self, prompts: list[Prompt]) -> Batch:
        """Batch of completions of these prompts, group by group, with their advantages."""
        options = self.options
        written, rewards = self.answers(prompts, options.num_generations)
        groups = rewards.view(len(prompts), -1)
        self.count("reward_std", groups.std(1))
        kept = torch.tensor([answer.finished or not options.mask_truncated for answer in written])
        tokens = lengths(written)
        batch = self.padded([answer.row() for answer in written])
        batch["advantages"] = (
            advantages(groups, scale=options.scale_rewards == "group").flatten().float()
        )
        batch["weights"] = (
            token_weights(tokens, options.loss, options.max_new_tokens) * kept
        ).float()
        batch["parts"] = parts(tokens[kept], options.loss)
        batch["tokens"] = collators.tokens(batch)
        return batch

    def compute_loss(self, forward: Any, batch: Batch, scale: float) -> Tensor:
        """Minus the advantage times the probability ratio, plus beta times the KL divergence, over
        tokens."""
        inputs, labels = batch["inputs"], batch["labels"]
        logps, auxiliary = self.causal_loss.logps(forward, inputs, labels)  # (B, T)
        known = shift(labels, None)[1]
        loss = -(logps - logps.detach()).exp() * batch["advantages"][:, None]
        if self.options.beta:
            # the reference needs no gradients
            with self.reference() as reference:
                wanted = reference.logps(reference.model, inputs, labels)[0]
            kl = (wanted - logps).exp() - (wanted - logps) - 1
            loss = loss + self.options.beta * kl
            self.count("kl", (kl.detach() * known).sum(1) / known.sum(1))
        return (loss * known * batch["weights"][:, None]).sum() * scale + auxiliary
