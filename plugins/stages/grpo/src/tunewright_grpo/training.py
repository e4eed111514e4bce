"""A group of answers to each prompt, step by step."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from tunewright_grpo.advantage import advantages, parts, token_weights
from tunewright_hf.losses.causal_lm import shift
from tunewright_hf.training.online_rl import Prompt, PromptsTrainer, lengths


class GrpoTrainer(PromptsTrainer):
    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Tensor]:
        made = [self._answered(prompts) for prompts in islice(epoch_iterator, num_batches)]
        counts = torch.tensor(
            [sum(batch["parts"] for batch in made), sum(batch["tokens"] for batch in made)]
        )
        sums = self.total(counts.double())
        self.progress["tokens"] += int(sums[1])
        return made, sums[0].clamp(min=1)

    def _answered(self, prompts: list[Prompt]) -> dict[str, Any]:
        """A batch of the answers to these prompts, group by group, with their advantages."""
        options = self.options
        written, rewards = self.answers(prompts, options.num_generations)
        groups = rewards.view(len(prompts), -1)
        self.count("reward_std", groups.std(1))
        kept = torch.tensor([answer.finished or not options.mask_truncated for answer in written])
        tokens = lengths(written)
        batch: dict[str, Any] = self.padded([answer.row() for answer in written])
        batch["advantages"] = (
            advantages(groups, scale=options.scale_rewards == "group").flatten().float()
        )
        batch["weights"] = (
            token_weights(tokens, options.loss, options.max_new_tokens) * kept
        ).float()
        batch["parts"] = parts(tokens[kept], options.loss)
        batch["tokens"] = int(batch["attention_mask"].sum())
        return batch

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor:
        """Minus the advantage times the ratio of probabilities, plus beta times the KL divergence,
        over tokens."""
        batch = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        logps, auxiliary = self.causal_loss.logps(model, batch, inputs["labels"])  # (B, T)
        known = shift(inputs["labels"], None)[1]
        loss = -(logps - logps.detach()).exp() * inputs["advantages"][:, None]
        if self.options.beta:
            with (
                self.reference() as reference
            ):  # and without gradients: what is trained stands below
                wanted = reference.logps(reference.model, batch, inputs["labels"])[0]
            kl = (wanted - logps).exp() - (wanted - logps) - 1
            loss = loss + self.options.beta * kl
            self.count("kl", (kl.detach() * known).sum(1) / known.sum(1))
        return (loss * known * inputs["weights"][:, None]).sum() * self.scale(
            num_items_in_batch
        ) + auxiliary
