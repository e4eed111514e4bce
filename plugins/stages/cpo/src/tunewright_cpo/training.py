"""Training on preference pairs and the likelihood of the chosen answers."""

from functools import partial
from typing import Any

from torch import Tensor
from torch.nn.functional import logsigmoid

from tunewright.types import RunContext, StageResult, TrainRequest
from tunewright_cpo import Cpo
from tunewright_hf.training.fit import fit
from tunewright_hf.training.preference import Logps, LogpsTrainer, LossOutput, pair_metrics
from tunewright_hf.training.stage_trainer import Batch


def train(run: RunContext, request: TrainRequest, options: Any, stage: str) -> StageResult:
    """Train on preference rows, and save. Raises as `fit` does."""
    make = partial(CpoTrainer, options=options)
    return fit(run, request, make, stage=stage, template=run.plugin("template"))


class CpoTrainer(LogpsTrainer):
    metrics = Cpo.eval_metrics[1:]

    def outcome(self, forward: Any, batch: Batch) -> LossOutput:
        options, policy = self.options, self.logps(forward, batch)
        nll = -policy.means[0]
        loss = preference_loss(policy, options) + options.sft_weight * nll
        metrics = pair_metrics(options.beta * policy.sums, policy.sums) | {"nll_loss": nll}
        return LossOutput(loss, metrics, policy.auxiliary)


def preference_loss(policy: Logps, options: Any) -> Tensor:
    """Losses (B,) of pairs; chosen answers first."""
    if options.loss == "ipo":
        return (policy.means[0] - policy.means[1] - 1 / (2 * options.beta)) ** 2
    margin = options.beta * (policy.sums[0] - policy.sums[1])
    if options.loss == "hinge":
        return (1 - margin).relu()
    smoothing = options.label_smoothing
    return -(1 - smoothing) * logsigmoid(margin) - smoothing * logsigmoid(-margin)
