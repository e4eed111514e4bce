"""Training of causal language models, for the stages `sft` and `pretrain`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunewright.types import RunContext, StageResult, TrainRequest
from tunewright_hf.batching import collators
from tunewright_hf.batching.batch_sampler import row_lengths
from tunewright_hf.batching.units import Unit, packed
from tunewright_hf.losses.causal_lm import CausalLoss, shift
from tunewright_hf.losses.chunked_cross_entropy import TokenWeighting
from tunewright_hf.training.fit import fit
from tunewright_hf.training.stage_trainer import Batch, StageTrainer, TrainingSetup, moved

__all__ = [
    "CausalTrainer",
    "train",
]

#: further metrics of an evaluation set's rows, the same on every rank
ExtraEvalMetrics = Callable[["CausalTrainer", Any], dict[str, float]]


def train(
    run: RunContext,
    request: TrainRequest,
    *,
    stage: str,
    packing: bool,
    template: Any = None,
    token_weighting: TokenWeighting | None = None,
    extra_eval_metrics: ExtraEvalMetrics | None = None,
) -> StageResult:
    """Train with the mean negative log-likelihood of the trained tokens, in training multiplied by
    `token_weighting`. See `fit`."""
    make = partial(
        CausalTrainer,
        packing=packing,
        token_weighting=token_weighting,
        extra_eval_metrics=extra_eval_metrics,
    )
    return fit(run, request, make, stage=stage, packing=packing, template=template)


class CausalTrainer(StageTrainer):
    """Next-token loss on packed or padded rows."""

    leaves_out = True

    def __init__(
        self,
        setup: TrainingSetup,
        *,
        packing: bool,
        token_weighting: TokenWeighting | None = None,
        extra_eval_metrics: ExtraEvalMetrics | None = None,
    ) -> None:
        super().__init__(setup)
        self.packing, self.token_weighting, self.extra_eval_metrics = (
            packing,
            token_weighting,
            extra_eval_metrics,
        )
        padded = collators.Padded(self.tokenizer.pad_token_id or 0, media=self.media)
        self.collate = collators.Packed(self.media) if packing else padded
        self.causal_loss = CausalLoss(self.model)

    @property
    def keeps_all_logits(self) -> bool:
        return self.causal_loss.after_head is None

    def weight(self, batch: Batch) -> float:
        return shift(batch["labels"], batch.get("loss_weights"))[1].sum().item()

    def compute_loss(self, forward: Any, batch: Batch, scale: float) -> Tensor:
        """Weighted mean over the trained tokens of the whole step, nats."""
        weights = batch.get("loss_weights")
        return self.causal_loss(
            forward, batch["inputs"], batch["labels"], weights, scale, self.token_weighting
        )[0]

    @torch.no_grad()
    def evaluate_one(self, name: str, rows: Any) -> dict[str, float]:
        """Mean negative log-likelihood of the trained tokens, with rows packed or padded as in
        training, and `extra_eval_metrics`."""
        sums = torch.zeros(2, dtype=torch.float64)  # loss, weight
        for own, counts in self.own_batches(rows, self.eval_units(rows)):
            batch = moved(self.report_unreadable(self.collate(own)), self.device)
            labels, weights = batch["labels"], batch.get("loss_weights")
            total = self.causal_loss(self.model, batch["inputs"], labels, weights)[1]
            if counts:
                sums += torch.stack([total, shift(labels, weights)[1].sum()]).cpu()
        sums = self.total(sums)
        loss = float(sums[0] / sums[1]) if sums[1] else 0.0
        extra = self.extra_eval_metrics(self, rows) if self.extra_eval_metrics else {}
        return {"loss": loss, **extra}

    def eval_units(self, rows: Any) -> list[Unit]:
        """Packs, or single rows with similar lengths next to each other."""
        lengths = np.asarray(row_lengths(rows), dtype=np.int64)
        if self.packing:
            return list(packed(np.arange(len(lengths)), lengths, self.request.training.max_length))
        return [[row] for row in np.argsort(-lengths, kind="stable").tolist()]
