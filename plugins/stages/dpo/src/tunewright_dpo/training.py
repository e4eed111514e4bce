"""Training on preference pairs relative to a reference model."""

from functools import partial
from typing import Any

from tunewright.types import RunContext, StageResult, TrainRequest
from tunewright_dpo import Dpo
from tunewright_dpo.losses import LOSSES, Ratios
from tunewright_hf.training.fit import fit
from tunewright_hf.training.preference import LossOutput, PreferenceCollator, pair_metrics
from tunewright_hf.training.reference import ReferenceTrainer
from tunewright_hf.training.stage_trainer import Batch, TrainingSetup


def train(run: RunContext, request: TrainRequest, options: Any, stage: str) -> StageResult:
    """Train on preference rows, and save. Raises as `fit` does, and RecipeError if the reference
    does not fit."""
    make = partial(DpoTrainer, options=options)
    return fit(run, request, make, stage=stage, template=run.plugin("template"))


class DpoTrainer(ReferenceTrainer):
    metrics = Dpo.eval_metrics[1:]

    def __init__(self, setup: TrainingSetup, options: Any) -> None:
        super().__init__(setup, options)
        self.progress["rewards"] = {"mean": 0.0, "steps": 0}  # over all steps, for bco_pair

    def collator(self) -> PreferenceCollator:
        collator = super().collator()
        collator.ld_alpha = self.options.ld_alpha
        return collator

    def cache_identity(self) -> dict[str, Any]:
        return super().cache_identity() | {"ld_alpha": self.options.ld_alpha}

    def outcome(self, forward: Any, batch: Batch) -> LossOutput:
        options, reference = self.options, self.reference_of(batch).T  # (2, B)
        policy = self.logps(forward, batch)
        sums = policy.sums - reference
        ratios = Ratios(sums, sums / policy.lengths, self.progress["rewards"]["mean"])
        named = ((weight, LOSSES[name]) for name, weight in options.losses.items())
        loss = sum(
            weight * each(ratios, options.beta, options.label_smoothing) for weight, each in named
        )
        nll = -policy.means[0]
        if options.sft_weight:
            loss = loss + options.sft_weight * nll
        return LossOutput(
            loss,
            pair_metrics(options.beta * sums, policy.sums) | {"nll_loss": nll},
            policy.auxiliary,
        )

    def step_metrics(self, metrics: dict[str, float]) -> None:
        so_far = self.progress["rewards"]
        if not metrics:  # no finite number is left: training has diverged
            return
        so_far["steps"] += 1
        mean = (metrics["rewards/chosen"] + metrics["rewards/rejected"]) / 2
        so_far["mean"] += (mean - so_far["mean"]) / so_far["steps"]
