"""Training on preference pairs by their odds ratio."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from tunewright.types import RunContext, StageResult, TrainRequest
from tunewright_hf.training.fit import fit
from tunewright_hf.training.preference import LogpsTrainer, LossOutput, pair_metrics
from tunewright_hf.training.stage_trainer import Batch
from tunewright_orpo import Orpo

_TINY = 1e-7  # nats: avoids infinite odds of a certain token


def train(run: RunContext, request: TrainRequest, options: Any, stage: str) -> StageResult:
    """Train on preference rows, and save. Raises as `fit` does."""
    make = partial(OrpoTrainer, options=options)
    return fit(run, request, make, stage=stage, template=run.plugin("template"))


class OrpoTrainer(LogpsTrainer):
    metrics = Orpo.eval_metrics[1:]

    def outcome(self, forward: Any, batch: Batch) -> LossOutput:
        beta, policy = self.options.beta, self.logps(forward, batch)
        nll, ratio = -policy.means[0], log_odds_ratio(policy.means)
        loss = nll - beta * logsigmoid(ratio)
        own = {"nll_loss": nll, "log_odds_ratio": logsigmoid(ratio), "log_odds_chosen": ratio}
        return LossOutput(
            loss, pair_metrics(beta * policy.means, policy.sums) | own, policy.auxiliary
        )


def log_odds_ratio(means: Tensor) -> Tensor:
    """Log odds ratio (B,) from the mean log-probabilities per token, in nats (2, B); chosen answers
    first."""
    means = means.clamp(max=-_TINY)
    # log(1 - p), by the formula that is accurate in each range
    near_one = means > -math.log(2)
    against = torch.where(
        near_one, (-torch.expm1(means)).log(), torch.log1p(-means.clamp(max=-math.log(2)).exp())
    )
    odds = means - against
    return odds[0] - odds[1]
