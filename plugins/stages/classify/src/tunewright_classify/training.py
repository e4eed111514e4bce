"""Training of classifiers and regressions."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from tunewright import RunError
from tunewright.errors import did_you_mean
from tunewright.types import RunContext, StageResult, TrainRequest
from tunewright_classify.metrics import class_metrics, class_sums, number_metrics, number_sums
from tunewright_hf.batching.batch_sampler import row_lengths
from tunewright_hf.batching.collators import Padded, Row
from tunewright_hf.batching.row_stream import RowStream
from tunewright_hf.losses.sequence_scores import outputs_at_the_end
from tunewright_hf.models.modules import base_model
from tunewright_hf.training.fit import fit
from tunewright_hf.training.stage_trainer import Batch, StageTrainer, TrainingSetup, moved


def train(run: RunContext, request: TrainRequest, options: Any, stage: str) -> StageResult:
    """Train on labelled rows, and save. Raises as `fit` does, and RunError where a row has a label
    that the recipe does not name."""
    targets = Targets(options)
    if request.train_with is None:  # a plan has made-up rows
        for rows in (request.data.train, *request.data.evals.values()):
            targets.check(rows)
    suffix = "" if options.problem == "regression" else "_classification"
    base_model(request.loaded.model).config.problem_type = options.problem + suffix
    make = partial(ClassifyTrainer, options=options, targets=targets)
    return fit(run, request, make, stage=stage, template=run.plugin("template"))


class Targets:
    """Turns the labels of rows into numbers. options: Classify.Options."""

    def __init__(self, options: Any) -> None:
        self.problem, self.labels = options.problem, options.labels
        self._places = {str(place): place for place in range(len(self.labels))}
        self._places |= {name: place for place, name in enumerate(self.labels)}

    def check(self, rows: Any) -> None:
        """Raise RunError for a label that is unknown. Streamed rows are checked one by one."""
        if isinstance(rows, RowStream):
            return
        for table in rows.select_columns(["names", "value"]).with_format("arrow").iter(10_000):
            for row in table.to_pylist():
                self.of(row)

    def of(self, row: Row) -> list[float]:
        """Targets (N,) of a row. Raises RunError."""
        if self.problem == "regression":
            if row["value"] is None:
                raise self._problem(f"has the label {', '.join(row['names'])!r}, expected a number")
            return [row["value"]]
        if self.problem == "single_label" and len(row["names"]) != 1:
            raise self._problem(f"has {len(row['names'])} labels, expected one", "multi_label")
        found = [0.0] * len(self.labels)
        for name in row["names"]:
            if name not in self._places:
                hint = did_you_mean(name, self.labels) or f"name it in {list(self.labels)}"
                raise RunError(f"a row has the label {name!r}", place="stage.labels", hint=hint)
            found[self._places[name]] = 1.0
        return found

    @staticmethod
    def _problem(problem: str, other: str = "") -> RunError:
        hint = f"problem: {other} takes such rows" if other else ""
        return RunError(f"a row {problem}", place="stage.problem", hint=hint)


class ClassifyTrainer(StageTrainer):
    def __init__(self, setup: TrainingSetup, options: Any, targets: Targets) -> None:
        super().__init__(setup)
        self.problem = options.problem
        self.targets = None if setup.request.train_with else targets
        self.outputs = max(1, len(options.labels))
        self.pad = Padded(self.tokenizer.pad_token_id or 0)
        self.collate = self._collate

    def _collate(self, rows: Sequence[Row]) -> Batch:
        """Batch: inputs (input_ids, attention_mask), both (B, T), and targets (B, N)."""
        plain = [{"input_ids": row["input_ids"], "labels": row["input_ids"]} for row in rows]
        found: Iterable[list[float]] = (
            (self.targets.of(row) for row in rows)
            if self.targets
            else ([0.0] * self.outputs for _ in rows)
        )
        return {"inputs": self.pad(plain)["inputs"], "targets": torch.tensor(list(found))}

    def weight(self, batch: Batch) -> float:
        return float(len(batch["targets"]))

    def compute_loss(self, forward: Any, batch: Batch, scale: float) -> Tensor:
        """Mean over the rows of the whole step."""
        return self.losses(self._logits(forward, batch), batch["targets"]).sum() * scale

    def _logits(self, forward: Any, batch: Batch) -> Tensor:
        return outputs_at_the_end(self.model, forward, batch["inputs"])

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Losses (B,) of outputs (B, N)."""
        if self.problem == "single_label":
            return cross_entropy(logits, targets.argmax(1), reduction="none")
        if self.problem == "multi_label":
            return binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)
        return (logits - targets).square()[:, 0]

    @torch.no_grad()
    def evaluate_one(self, name: str, rows: Any) -> dict[str, float]:
        """Loss and metrics over the whole set."""
        order = np.argsort(-np.asarray(row_lengths(rows)), kind="stable").tolist()
        size = 7 if self.problem == "regression" else 2 + 3 * self.outputs
        sums = torch.zeros(1 + size, dtype=torch.float64)
        for own, counts in self.own_batches(rows, [[row] for row in order]):
            batch = moved(self.collate(own), self.device)
            logits, targets = self._logits(self.model, batch), batch["targets"]
            if counts:
                loss = self.losses(logits, targets).double().sum()
                sums += torch.cat([loss[None], self._sums(logits, targets)]).cpu()
        loss, *rest = self.total(sums)
        found = number_metrics if self.problem == "regression" else class_metrics
        return {"loss": float(loss / rest[0]), **found(torch.stack(rest))}

    def _sums(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.problem == "regression":
            return number_sums(logits[:, 0], targets[:, 0])
        return class_sums(logits, targets, self.problem == "multi_label")
