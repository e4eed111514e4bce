"""Training on preference pairs by log-probability per token."""

from functools import partial
from typing import Any

from torch import Tensor
from torch.nn.functional import logsigmoid

from tunewright.types import RunContext, StageResult, TrainRequest
from tunewright_hf.training.fit import fit
from tunewright_hf.training.preference import LogpsTrainer, LossOutput, pair_metrics
from tunewright_hf.training.stage_trainer import Batch
from tunewright_simpo import Simpo


def train(run: RunContext, request: TrainRequest, options: Any, stage: str) -> StageResult:
    """Train on preference rows, and save. Raises as `fit` does."""
    make = partial(SimpoTrainer, options=options)
    return fit(run, request, make, stage=stage, template=run.plugin("template"))


class SimpoTrainer(LogpsTrainer):
    metrics = Simpo.eval_metrics[1:]

    def outcome(self, forward: Any, batch: Batch) -> LossOutput:
        options, policy = self.options, self.logps(forward, batch)
        nll = -policy.means[0]
        loss = (
            simpo(policy.means, options.beta, options.gamma, options.label_smoothing)
            + options.sft_weight * nll
        )
        metrics = pair_metrics(options.beta * policy.means, policy.sums) | {"nll_loss": nll}
        return LossOutput(loss, metrics, policy.auxiliary)


def simpo(means: Tensor, beta: float, gamma: float, smoothing: float) -> Tensor:
    """Losses (B,) from the mean log-probabilities per token, in nats (2, B); chosen answers
    first."""
    margin = beta * (means[0] - means[1]) - gamma
    return -(1 - smoothing) * logsigmoid(margin) - smoothing * logsigmoid(-margin)
