"""Training on prompts with answers: two per preference row, one per unpaired row.

A step's loss is the mean over its rows, however they are split into passes and ranks. All answers
of a batch go through the model together, the first answers of all rows before the second ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from tunewright_hf.batching.batch_sampler import row_lengths
from tunewright_hf.batching.collators import Padded, Row
from tunewright_hf.batching.units import Unit
from tunewright_hf.losses.causal_lm import CausalLoss, shift
from tunewright_hf.losses.chunked_cross_entropy import IGNORED
from tunewright_hf.media.collation import MediaRows
from tunewright_hf.training.stage_trainer import Batch, StageTrainer, TrainingSetup, moved

__all__ = [
    "AnswersTrainer",
    "Logps",
    "LogpsTrainer",
    "LossOutput",
    "PreferenceCollator",
    "pair_metrics",
    "sequence_logps",
]

PAIR = ("chosen_ids", "rejected_ids")


@dataclass
class PreferenceCollator:
    """Batch of K answers per row: inputs (input_ids, attention_mask) and labels, all (K × B, T),
    with untrained prompts; and margin, label and reference if rows have them.

    ld_alpha: weight of an answer's tokens beyond the length of the row's shortest one, as
    loss_weights (K × B, T): length-desensitised likelihood (LD-DPO, Liu et al. 2024,
    arXiv:2409.06411). None: all weigh the same.
    """

    pad_id: int
    columns: tuple[str, ...] = PAIR
    ld_alpha: float | None = None
    media: MediaRows | None = None

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        batch: dict[str, Any] = Padded(self.pad_id, media=self.media)(
            [self._whole(row, name) for name in self.columns for row in rows]
        )
        if "margin" in rows[0]:
            batch["margin"] = torch.tensor([float(row["margin"] or 0.0) for row in rows])
        if "label" in rows[0]:
            batch["label"] = torch.tensor([bool(row["label"]) for row in rows])
        if "reference" in rows[0]:
            batch["reference"] = torch.stack([row["reference"] for row in rows])  # (B, K)
        return batch

    def _whole(self, row: Row, name: str) -> Row:
        prompt, answer = row["prompt_ids"], row[name]
        whole = {
            "input_ids": [*prompt, *answer],
            "labels": [IGNORED] * len(prompt) + list(answer),
            "media": row.get("media"),
        }
        if self.ld_alpha is not None:
            shared = min(len(row[other]) for other in self.columns)
            beyond = len(answer) - shared
            whole["loss_weights"] = [1.0] * (len(prompt) + shared) + [self.ld_alpha] * beyond
        return whole


@dataclass
class Logps:
    """Log-probabilities of the answers of a batch. All (K, B): index of the answer, then of the
    row."""

    sums: Tensor  # per answer, in nats; weighted by token if the batch has weights
    means: Tensor  # per token, unweighted
    lengths: Tensor  # tokens per answer
    auxiliary: Tensor | float = 0.0  # the family's own auxiliary loss, a scalar


def sequence_logps(loss: CausalLoss, forward: Any, batch: Batch, answers: int) -> Logps:
    """Log-probabilities of the batch's answers, K = `answers` per row. forward: the model as
    wrapped."""
    tokens, auxiliary = loss.logps(forward, batch["inputs"], batch["labels"])
    known, weights = (shift(batch["labels"], each)[1] for each in (None, batch.get("loss_weights")))
    lengths = known.sum(1)
    sums, means = (tokens * weights).sum(1), (tokens * known).sum(1) / lengths
    return Logps(
        sums.view(answers, -1), means.view(answers, -1), lengths.view(answers, -1), auxiliary
    )


@dataclass
class LossOutput:
    """Losses and metrics of a batch. Metrics are NaN in rows that they do not apply to."""

    loss: Tensor  # (B,), without the auxiliary loss
    metrics: dict[str, Tensor]  # name → (B,)
    auxiliary: Tensor | float = 0.0


def pair_metrics(rewards: Tensor, logps: Tensor | None = None) -> dict[str, Tensor]:
    """Usual metrics of pairs, from rewards and log-probabilities (2, B); chosen answers first."""
    chosen, rejected = rewards
    found = {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": chosen - rejected,
        "rewards/accuracies": (chosen > rejected).float(),
    }
    return (
        found if logps is None else found | {"logps/chosen": logps[0], "logps/rejected": logps[1]}
    )


class AnswersTrainer(StageTrainer):
    """Trains on answers. A subclass implements `outcome`, and names its metrics."""

    columns: ClassVar[tuple[str, ...]] = PAIR  #: the rows' columns with answers
    metrics: ClassVar[tuple[str, ...]]  #: names of the metrics of an outcome

    def __init__(self, setup: TrainingSetup, options: Any) -> None:
        super().__init__(setup)
        self.options = options
        #: since the last log: sum of values and number of rows, per metric
        self.progress["sums"] = [[0.0, 0.0] for _ in self.metrics]
        # in this step, on this rank
        self._sums = torch.zeros(len(self.metrics), 2, dtype=torch.float64)
        self.collate = self.collator()

    def outcome(self, forward: Any, batch: Batch) -> LossOutput:
        """Losses and metrics of a batch. forward: the model as wrapped for training."""
        raise NotImplementedError

    def collator(self) -> Any:
        pad = self.tokenizer.pad_token_id or 0
        return PreferenceCollator(pad, self.columns, media=self.media)

    def weight(self, batch: Batch) -> float:
        return len(batch["labels"]) / len(self.columns)

    def compute_loss(self, forward: Any, batch: Batch, scale: float) -> Tensor:
        """Mean over the rows of the whole step."""
        outcome = self.outcome(forward, batch)
        self._sums += self._counted(outcome)
        return outcome.loss.sum() * scale + outcome.auxiliary

    def _counted(self, outcome: LossOutput) -> Tensor:
        """(metrics, 2): sum of each metric's values, and number of its rows."""
        assert outcome.metrics.keys() == set(self.metrics)
        values = (
            torch.stack([outcome.metrics[name].detach() for name in self.metrics]).double().cpu()
        )
        return torch.stack([values.nansum(1), (~values.isnan()).sum(1)], dim=1)

    def step_ended(self) -> None:
        sums = self.total(self._sums)
        self.progress["sums"] = (
            torch.tensor(self.progress["sums"], dtype=torch.float64) + sums
        ).tolist()
        self._sums = torch.zeros_like(self._sums)
        self.step_metrics(self._means(sums))

    def step_metrics(self, metrics: dict[str, float]) -> None:
        """Hook after each step, on every rank, with its metrics."""

    def logged(self) -> dict[str, float]:
        sums = torch.tensor(self.progress["sums"], dtype=torch.float64)
        self.progress["sums"] = torch.zeros_like(sums).tolist()
        return self.derived(self._means(sums))

    def _means(self, sums: Tensor) -> dict[str, float]:
        return {
            name: float(total / rows)
            for name, (total, rows) in zip(self.metrics, sums, strict=True)
            if rows
        }

    def derived(self, metrics: dict[str, float]) -> dict[str, float]:
        """Metrics to report, from the means of those in `outcome`."""
        return metrics

    def eval_units(self, name: str) -> list[Unit]:
        """Rows of an evaluation set, similar lengths next to each other."""
        lengths = np.asarray(row_lengths(self.request.data.evals[name]))
        return [[row] for row in np.argsort(-lengths, kind="stable").tolist()]

    @torch.no_grad()
    def evaluate_one(self, name: str, rows: Any) -> dict[str, float]:
        sums = torch.zeros(len(self.metrics) + 1, 2, dtype=torch.float64)
        for own, counts in self.own_batches(rows, self.eval_units(name)):
            outcome = self.outcome(self.model, moved(self.collate(own), self.device))
            if counts:
                loss = torch.stack(
                    [outcome.loss.double().sum().cpu(), torch.tensor(len(own)).double()]
                )
                sums += torch.cat([loss[None], self._counted(outcome)])
        sums = self.total(sums)
        return {"loss": float(sums[0, 0] / sums[0, 1]), **self.derived(self._means(sums[1:]))}


class LogpsTrainer(AnswersTrainer):
    """Trains on the log-probabilities of answers."""

    def __init__(self, setup: TrainingSetup, options: Any) -> None:
        super().__init__(setup, options)
        self.causal_loss = CausalLoss(self.model)

    @property
    def keeps_all_logits(self) -> bool:
        return self.causal_loss.after_head is None

    def logps(self, forward: Any, batch: Batch) -> Logps:
        """Log-probabilities under the policy. forward: the model as wrapped for training."""
        return sequence_logps(self.causal_loss, forward, batch, len(self.columns))
