"""Training of causal language models, for the stages `sft` and `pretrain`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from trl import SFTConfig, SFTTrainer

from tunewright.types import StageResult, TrainRequest
from tunewright_hf.batching import collators
from tunewright_hf.batching.batch_sampler import Unit, pack, row_lengths
from tunewright_hf.batching.streaming_sampler import LOOKED_AT, StreamedBatches
from tunewright_hf.losses.causal_lm import CausalLoss, shift
from tunewright_hf.losses.chunked_cross_entropy import TokenWeighting
from tunewright_hf.training.loop import AnyBatches, StageTrainer, fit, moved, settings
from tunewright_hf.training.private import keep_model, one_gpu, silence
from tunewright_hf.training.reporting import Reporter

#: further metrics of the rows of an evaluation set, the same on every process
ExtraEvalMetrics = Callable[["CausalTrainer", Any], dict[str, float]]


def train(
    run: Any,
    request: TrainRequest,
    *,
    stage: str,
    packing: bool,
    template: Any = None,
    token_weighting: TokenWeighting | None = None,
    extra_eval_metrics: ExtraEvalMetrics | None = None,
) -> StageResult:
    """`fit` with the mean negative log-likelihood of the trained tokens, in training each times
    what `weigh` says."""
    make = partial(CausalTrainer, run, request, packing, token_weighting, extra_eval_metrics)
    return fit(run, request, make, stage=stage, packing=packing, template=template)


class CausalTrainer(StageTrainer, SFTTrainer):
    """SFTTrainer with our rows, batches, loss, optimizer, evaluation and checkpoints."""

    def __init__(
        self,
        run: Any,
        request: TrainRequest,
        packing: bool,
        token_weighting: TokenWeighting | None,
        extra_eval_metrics: ExtraEvalMetrics | None,
        batches: AnyBatches,
        reporter: Reporter,
    ) -> None:
        self.begin(run, request, batches, reporter)
        loaded = request.loaded
        pad = loaded.tokenizer.pad_token_id
        self.packing, self.token_weighting, self.extra_eval_metrics = (
            packing,
            token_weighting,
            extra_eval_metrics,
        )
        # rows come cut and prepared
        own = {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}
        args = SFTConfig(**settings(request, batches.steps), **own)
        one_gpu(args)
        restore = keep_model(loaded.model)
        super().__init__(
            loaded.model,
            args,
            data_collator=collators.Packed()
            if packing
            else collators.Padded(pad if pad is not None else 0),
            # TRL looks at one row
            train_dataset=LOOKED_AT if isinstance(batches, StreamedBatches) else request.data.train,
            processing_class=loaded.tokenizer,
            callbacks=[reporter],
        )
        restore()
        silence(self)
        self.causal_loss = CausalLoss(self.model)

    @property
    def keeps_all_logits(self) -> bool:
        return self.causal_loss.after_head is None

    def weight(self, batch: dict[str, Tensor]) -> float:
        return shift(batch["labels"], batch.get("loss_weights"))[1].sum().item()

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor:
        """Weighted mean over the trained tokens of the whole step, nats, times what is divided out
        later."""
        labels, weights = inputs.pop("labels"), inputs.pop("loss_weights", None)
        return self.causal_loss(
            model, inputs, labels, weights, self.scale(num_items_in_batch), self.token_weighting
        )[0]

    @torch.no_grad()
    def evaluate_one(self, name: str, rows: Any) -> dict[str, float]:
        """Mean negative log-likelihood of the trained tokens, of rows that are packed or padded as
        in training, and what `further` finds."""
        sums = torch.zeros(2, dtype=torch.float64)  # loss, weight
        for own, counts in self.own_batches(rows, self.eval_units(rows)):
            batch = moved(self.data_collator(own), self.args.device)
            labels, weights = batch.pop("labels"), batch.pop("loss_weights", None)
            total = self.causal_loss(self.model, batch, labels, weights)[1]
            if counts:
                sums += torch.stack([total, shift(labels, weights)[1].sum()]).cpu()
        sums = self.total(sums)
        loss = float(sums[0] / sums[1]) if sums[1] else 0.0
        return {
            "loss": loss,
            **(self.extra_eval_metrics(self, rows) if self.extra_eval_metrics else {}),
        }

    def eval_units(self, rows: Any) -> list[Unit]:
        """Packs, or single rows, those of like length side by side."""
        lengths = np.asarray(row_lengths(rows), dtype=np.int64)
        if self.packing:
            return pack(np.arange(len(lengths)), lengths, self.request.training.max_length)
        return [[row] for row in np.argsort(-lengths, kind="stable").tolist()]
