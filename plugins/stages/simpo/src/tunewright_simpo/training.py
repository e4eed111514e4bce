"""Training on pairs of answers by their log-probability per token."""

from functools import partial
from typing import Any

from torch import Tensor
from torch.nn.functional import logsigmoid

from tunewright.types import StageResult, TrainRequest
from tunewright_hf.training.fit import fit
from tunewright_hf.training.preference import LogpsTrainer, LossOutput, pair_metrics
from tunewright_hf.training.stage_trainer import Batch


def train(run: Any, request: TrainRequest, options: Any, stage: str) -> StageResult:
    """Train on preference rows, and save. Raises as `fit` does."""
    make = partial(SimpoTrainer, options=options)
    return fit(run, request, make, stage=stage, template=run.plugin("template"))


class SimpoTrainer(LogpsTrainer):
    metrics = (
        "rewards/chosen",
        "rewards/rejected",
        "rewards/margins",
        "rewards/accuracies",
        "logps/chosen",
        "logps/rejected",
        "nll_loss",
    )

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
    """(B,) from the mean log-probability of the answers' tokens in nats (2, B), of the chosen ones
    first."""
    margin = beta * (means[0] - means[1]) - gamma
    return -(1 - smoothing) * logsigmoid(margin) - smoothing * logsigmoid(-margin)
