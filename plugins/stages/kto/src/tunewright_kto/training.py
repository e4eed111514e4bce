"""Training on labelled answers relative to a reference model."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tunewright import RecipeError, RunError
from tunewright.types import RunContext, StageResult, TrainRequest
from tunewright_hf.batching.collators import Row
from tunewright_hf.batching.row_stream import RowStream
from tunewright_hf.losses.causal_lm import CausalLoss
from tunewright_hf.training.fit import fit
from tunewright_hf.training.preference import LossOutput, PreferenceCollator, sequence_logps
from tunewright_hf.training.reference import ReferenceTrainer
from tunewright_hf.training.stage_trainer import Batch, TrainingSetup, moved


def train(run: RunContext, request: TrainRequest, options: Any, stage: str) -> StageResult:
    """Train on unpaired rows, and save. Raises as `fit` does, and RecipeError if the reference does
    not fit."""
    if options.loss == "kto" and isinstance(request.data.train, RowStream):
        problem = (
            "its divergence is estimated with answers of other rows, which have no "
            "numbers while they are read"
        )
        raise RecipeError(
            problem, place="stage", hint="take loss: apo_zero_unpaired, or do not stream"
        )
    make = partial(KtoTrainer, options=options)
    return fit(run, request, make, stage=stage, template=run.plugin("template"))


class Mismatched(Dataset[Row]):
    """Examples with the answer of another example, as `kl_ids`. The pairing is fixed and
    independent of batches.

    max_length: maximum tokens of prompt and answer; longer ones are truncated.
    """

    def __init__(self, rows: Any, seed: int, max_length: int) -> None:
        if len(rows) < 2:
            raise RunError(
                "one row alone has no other row's answer", place="data", hint="give more rows"
            )
        self.rows, self.max_length = rows, max_length
        circle = np.random.default_rng(seed).permutation(len(rows))
        self.partners = np.empty_like(circle)
        self.partners[circle] = np.roll(circle, 1)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Row:
        row, other = self.rows[number], self.rows[int(self.partners[number])]
        return {
            **row,
            "kl_ids": other["completion_ids"][: max(1, self.max_length - len(row["prompt_ids"]))],
        }


@dataclass
class WithKl:
    """Collator of answers; the batch has a second batch of mismatched answers as `kl`."""

    answers: PreferenceCollator
    mismatched: PreferenceCollator

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        names = ("prompt_ids", "kl_ids", "media")
        pairs = [{name: row.get(name) for name in names} for row in rows]
        return self.answers(rows) | {"kl": self.mismatched(pairs)}


class KtoTrainer(ReferenceTrainer):
    columns = ("completion_ids",)
    metrics = ("rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected", "kl")

    def __init__(self, setup: TrainingSetup, options: Any) -> None:
        self.compares = options.loss == "kto"
        self.scores = 2 if self.compares else 1
        self.kl = 0.0  # nats, of the step or the evaluation set
        super().__init__(setup, options)

    def prepared(self, rows: Any) -> Any:
        training = self.request.training
        return Mismatched(rows, training.seed, training.max_length) if self.compares else rows

    def collator(self) -> Any:
        answers = super().collator()
        return (
            WithKl(answers, PreferenceCollator(answers.pad_id, ("kl_ids",), media=answers.media))
            if self.compares
            else answers
        )

    def score(self, loss: CausalLoss, forward: Any, batch: Batch) -> Tensor:
        """Log-probabilities (B, 2): of the answers, and of the mismatched ones."""
        found = super().score(loss, forward, batch)
        return (
            torch.cat([found, super().score(loss, forward, batch["kl"])], 1)
            if self.compares
            else found
        )

    def prepare_step(self, batches: list[Batch]) -> tuple[list[Batch], float]:
        batches, weight = super().prepare_step(batches)
        if self.compares:
            batches = [moved(batch, self.device) for batch in batches]
            self.kl = self._divergence((batch, True) for batch in batches)
        return batches, weight

    @torch.no_grad()
    def _divergence(self, batches: Iterable[tuple[Batch, bool]]) -> float:
        """Estimate the KL divergence from the reference: mean log-ratio of the mismatched answers
        of all counted batches on all ranks, in nats, at least 0. Stores the reference's
        log-probabilities in the batches."""
        sums = torch.zeros(2, dtype=torch.float64)
        training = self.model.training
        for batch, counts in batches:
            batch["reference"] = self.reference_of(batch)
            self.model.eval()
            with self.autocast():
                policy = sequence_logps(self.causal_loss, self.model, batch["kl"], 1).sums[0]
            self.model.train(training)
            ratios = policy - batch["reference"][:, 1]
            if counts:
                sums += torch.stack(
                    [ratios.double().sum().cpu(), torch.tensor(len(ratios)).double()]
                )
        sums = self.total(sums)
        return max(0.0, float(sums[0] / sums[1]))

    def evaluate_one(self, name: str, rows: Any) -> dict[str, float]:
        if self.compares:
            passes = self.own_batches(rows, self.eval_units(name))
            self.kl = self._divergence(
                (moved(self.collate(own), self.device), counts) for own, counts in passes
            )
        return super().evaluate_one(name, rows)

    def outcome(self, forward: Any, batch: Batch) -> LossOutput:
        options, reference, good = self.options, self.reference_of(batch)[:, 0], batch["label"]
        policy = self.logps(forward, batch)
        sums = policy.sums[0]
        rewards = options.beta * (sums - reference)
        losses = kto(rewards, good, options.beta * self.kl)
        weights = torch.where(good, options.desirable_weight, options.undesirable_weight)
        nothing = torch.full_like(rewards, torch.nan)
        metrics = {
            "rewards/chosen": torch.where(good, rewards, nothing),
            "rewards/rejected": torch.where(good, nothing, rewards),
            "logps/chosen": torch.where(good, sums, nothing),
            "logps/rejected": torch.where(good, nothing, sums),
            "kl": torch.full_like(rewards, self.kl),
        }
        return LossOutput(losses * weights, metrics, policy.auxiliary)

    def derived(self, metrics: dict[str, float]) -> dict[str, float]:
        """Add the margin, which is a difference of means."""
        if {"rewards/chosen", "rewards/rejected"} <= metrics.keys():
            metrics["rewards/margins"] = metrics["rewards/chosen"] - metrics["rewards/rejected"]
        return metrics


def kto(rewards: Tensor, good: Tensor, divergence: float) -> Tensor:
    """Losses (B,) from rewards (B,), labels `good` (B,), and beta times the divergence; with
    divergence 0 this is APO-zero."""
    return torch.where(
        good, 1 - (rewards - divergence).sigmoid(), 1 - (divergence - rewards).sigmoid()
    )
