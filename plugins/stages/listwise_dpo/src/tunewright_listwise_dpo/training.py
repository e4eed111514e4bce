"""Training on answers in order, relative to a reference model."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from tunewright.types import RunContext, StageResult, TrainRequest
from tunewright_hf.batching.collators import Padded, Row
from tunewright_hf.batching.row_stream import RowStream
from tunewright_hf.losses.causal_lm import CausalLoss
from tunewright_hf.losses.chunked_cross_entropy import IGNORED
from tunewright_hf.training.fit import fit
from tunewright_hf.training.preference import LossOutput, sequence_logps
from tunewright_hf.training.reference import ReferenceTrainer
from tunewright_hf.training.stage_trainer import Batch, TrainingSetup
from tunewright_listwise_dpo import ListwiseDpo
from tunewright_listwise_dpo.losses import LOSSES, reward_metrics


def train(run: RunContext, request: TrainRequest, options: Any, stage: str) -> StageResult:
    """Train on ranked rows, and save. Raises as `fit` does, and RecipeError if the reference does
    not fit."""
    make = partial(ListwiseDpoTrainer, options=options)
    return fit(run, request, make, stage=stage, template=run.plugin("template"))


class ListwiseDpoTrainer(ReferenceTrainer):
    metrics = ListwiseDpo.eval_metrics[1:]

    def __init__(self, setup: TrainingSetup, options: Any) -> None:
        data = setup.request.data
        self.scores = max(map(most_answers, (data.train, *data.evals.values())))
        super().__init__(setup, options)

    def collator(self) -> Any:
        padded = Padded(self.tokenizer.pad_token_id or 0, media=self.media)
        return partial(collate, padded=padded)

    def weight(self, batch: Batch) -> float:
        return float(len(batch["counts"]))

    def score(self, loss: CausalLoss, forward: Any, batch: Batch) -> Tensor:
        """Log-probabilities (B, K) of answers, 0 where a row has fewer."""
        found = sequence_logps(loss, forward, batch, 1).sums[0].split(batch["counts"])
        return torch.stack([pad(each, (0, self.scores - len(each))) for each in found])

    def outcome(self, forward: Any, batch: Batch) -> LossOutput:
        reference, options = self.reference_of(batch), self.options
        policy = sequence_logps(self.causal_loss, forward, batch, 1)
        rewards = [
            options.beta * (own - theirs[: len(own)])
            for own, theirs in zip(policy.sums[0].split(batch["counts"]), reference, strict=True)
        ]
        losses = torch.stack([LOSSES[options.loss](each) for each in rewards])
        columns = zip(*(reward_metrics(each) for each in rewards), strict=True)
        metrics = [torch.stack(column) for column in columns]
        return LossOutput(losses, dict(zip(self.metrics, metrics, strict=True)), policy.auxiliary)


def most_answers(rows: Any) -> int:
    """The largest number of answers of a row; 0 for streamed rows, whose scores are not kept."""
    if isinstance(rows, RowStream):
        return 0
    tables = rows.select_columns(["answer_ids"]).with_format("arrow").iter(10_000)
    offsets = (table["answer_ids"].combine_chunks().offsets.to_numpy() for table in tables)
    return max((int(np.diff(each).max()) for each in offsets), default=0)


def collate(rows: Sequence[Row], padded: Padded) -> Batch:
    """Batch of all N answers of B rows: inputs (input_ids, attention_mask) and labels, all (N, T),
    with untrained prompts; counts, the number of answers of each row; and reference (B, K) if rows
    have it."""
    batch: Batch = padded([_whole(row, answer) for row in rows for answer in row["answer_ids"]])
    batch["counts"] = [len(row["answer_ids"]) for row in rows]
    if "reference" in rows[0]:
        batch["reference"] = torch.stack([row["reference"] for row in rows])
    return batch


def _whole(row: Row, answer: Sequence[int]) -> Row:
    prompt = row["prompt_ids"]
    return {
        "input_ids": [*prompt, *answer],
        "labels": [IGNORED] * len(prompt) + list(answer),
        "media": row.get("media"),
    }
