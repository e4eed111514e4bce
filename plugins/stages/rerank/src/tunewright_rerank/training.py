"""Training of rerankers."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunewright import RunError
from tunewright.types import RunContext, StageResult, TrainRequest
from tunewright_hf.batching.batch_sampler import row_lengths
from tunewright_hf.batching.collators import Padded, Row
from tunewright_hf.batching.row_stream import RowStream
from tunewright_hf.losses.sequence_scores import scores_at_the_end
from tunewright_hf.models.modules import base_model
from tunewright_hf.training.fit import fit
from tunewright_hf.training.stage_trainer import Batch, StageTrainer, TrainingSetup, moved
from tunewright_rerank.losses import ranking_loss, ranking_metrics


def train(run: RunContext, request: TrainRequest, options: Any, stage: str) -> StageResult:
    """Train on retrieval rows, and save. Raises as `fit` does, and RunError where a row has no
    document that does not fit."""
    if request.train_with is None:  # a plan has made-up rows
        for rows in (request.data.train, *request.data.evals.values()):
            check_rows(rows)
    base_model(request.loaded.model).config.pair_prompt = options.prompt
    make = partial(RerankTrainer, options=options)
    return fit(run, request, make, stage=stage, template=run.plugin("template"))


def check_rows(rows: Any) -> None:
    """Raise RunError for rows with one document. Streamed rows are checked one by one."""
    if isinstance(rows, RowStream):
        return
    for table in rows.select_columns(["document_ids"]).with_format("arrow").iter(10_000):
        _check_counts(np.diff(table["document_ids"].combine_chunks().offsets.to_numpy()).tolist())


def _check_counts(counts: Sequence[int]) -> None:
    if min(counts) < 2:
        hint = "give each record a column `negative` (a text or a list)"
        raise RunError("a row has no negative document", place="data", hint=hint)


class RerankTrainer(StageTrainer):
    def __init__(self, setup: TrainingSetup, options: Any) -> None:
        super().__init__(setup)
        self.options, self.is_planned = options, setup.request.train_with is not None
        self.pad = Padded(self.tokenizer.pad_token_id or 0)
        self.collate = self._collate

    def _collate(self, rows: Sequence[Row]) -> Batch:
        """Batch of all texts of B rows: inputs (input_ids, attention_mask), both (N, T), and
        counts, the number of documents of each row."""
        counts = [len(row["document_ids"]) for row in rows]
        if not self.is_planned:
            _check_counts(counts)
        texts = [ids for row in rows for ids in row["document_ids"]]
        padded = self.pad([{"input_ids": ids, "labels": ids} for ids in texts])
        return {"inputs": padded["inputs"], "counts": counts}

    def weight(self, batch: Batch) -> float:
        return float(len(batch["counts"]))

    def compute_loss(self, forward: Any, batch: Batch, scale: float) -> Tensor:
        """Mean over the queries of the whole step."""
        return torch.stack(self._losses(self._scores(forward, batch))).sum() * scale

    def _scores(self, forward: Any, batch: Batch) -> Sequence[Tensor]:
        """Scores (D,) of each row's documents."""
        return scores_at_the_end(self.model, forward, batch["inputs"]).split(batch["counts"])

    def _losses(self, scores: Sequence[Tensor]) -> list[Tensor]:
        margin = self.options.margin or 1.0
        return [ranking_loss(own, self.options.loss, margin) for own in scores]

    @torch.no_grad()
    def evaluate_one(self, name: str, rows: Any) -> dict[str, float]:
        """Loss and metrics of each query's own documents."""
        order = np.argsort(-np.asarray(row_lengths(rows)), kind="stable").tolist()
        sums: dict[str, float] = {}
        for own, counts in self.own_batches(rows, [[row] for row in order]):
            scores = self._scores(self.model, moved(self.collate(own), self.device))
            for each, loss in zip(scores, self._losses(scores), strict=True):
                found = {"rows": 1.0, "loss": float(loss), **ranking_metrics(each)}
                sums = {key: sums.get(key, 0.0) + counts * value for key, value in found.items()}
        rows_seen, *totals = self.total(torch.tensor(list(sums.values())).double()).tolist()
        return {key: each / rows_seen for key, each in zip(list(sums)[1:], totals, strict=True)}
