"""Training of process reward models."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tunewright.types import RunContext, StageResult, TrainRequest
from tunewright_hf.batching.batch_sampler import row_lengths
from tunewright_hf.batching.collators import Padded, Row
from tunewright_hf.losses.chunked_cross_entropy import IGNORED
from tunewright_hf.losses.sequence_scores import outputs_of_tokens
from tunewright_hf.training.fit import fit
from tunewright_hf.training.stage_trainer import Batch, StageTrainer, TrainingSetup, moved


def train(run: RunContext, request: TrainRequest, options: Any, stage: str) -> StageResult:
    """Train on stepwise rows, and save. Raises as `fit` does."""
    make = partial(PrmTrainer, options=options)
    return fit(run, request, make, stage=stage, template=run.plugin("template"))


class PrmTrainer(StageTrainer):
    def __init__(self, setup: TrainingSetup, options: Any) -> None:
        super().__init__(setup)
        self.pad = Padded(self.tokenizer.pad_token_id or 0, media=self.media)
        self.collate = self._last_steps if options.only_last_step else self._collate

    def _collate(self, rows: Sequence[Row]) -> Batch:
        """Batch: inputs (input_ids, attention_mask) and labels, all (B, T): at the end of each step
        0 (wrong) or 1 (right)."""
        padded: Batch = self.pad(rows)
        return padded

    def _last_steps(self, rows: Sequence[Row]) -> Batch:
        return self._collate([{**row, "labels": last_alone(row["labels"])} for row in rows])

    def weight(self, batch: Batch) -> float:
        return float((batch["labels"] != IGNORED).sum())

    def compute_loss(self, forward: Any, batch: Batch, scale: float) -> Tensor:
        """Mean over the steps of answers in the whole step."""
        outputs = outputs_of_tokens(self.model, forward, batch["inputs"])
        return step_losses(outputs, batch["labels"]).sum() * scale

    @torch.no_grad()
    def evaluate_one(self, name: str, rows: Any) -> dict[str, float]:
        """Loss and accuracy over all steps, and share of answers whose steps are all judged
        right."""
        order = np.argsort(-np.asarray(row_lengths(rows)), kind="stable").tolist()
        sums = torch.zeros(5, dtype=torch.float64)
        for own, counts in self.own_batches(rows, [[row] for row in order]):
            batch = moved(self._collate(own), self.device)
            outputs = outputs_of_tokens(self.model, self.model, batch["inputs"])
            if counts:
                sums += step_sums(outputs, batch["labels"]).cpu()
        loss, right, steps, whole, answers = self.total(sums).tolist()
        return {"loss": loss / steps, "accuracy": right / steps, "answer_accuracy": whole / answers}


def last_alone(labels: Sequence[int]) -> list[int]:
    """Labels without those of other steps than the last."""
    last = max(place for place, label in enumerate(labels) if label != IGNORED)
    return [label if place == last else IGNORED for place, label in enumerate(labels)]


def step_losses(outputs: Tensor, labels: Tensor) -> Tensor:
    """Losses (S,), nats, of all S steps. outputs: (B, T, 2). labels: (B, T)."""
    known = labels != IGNORED
    return cross_entropy(outputs[known], labels[known], reduction="none")


def step_sums(outputs: Tensor, labels: Tensor) -> Tensor:
    """Sums (5,): losses, steps that are judged right, steps, answers of which all are, answers.
    Arguments: as `step_losses`."""
    known = labels != IGNORED
    right = outputs.argmax(-1) == labels
    whole = (right | ~known).all(1)
    parts = [step_losses(outputs, labels), right[known], known, whole, torch.ones_like(whole)]
    return torch.stack([each.double().sum() for each in parts])
