"""Reward model training: a head that scores a prompt with its answer."""

from functools import partial
from typing import Any

from torch import Tensor
from torch.nn.functional import logsigmoid

from tunewright.types import RunContext, StageResult, TrainRequest
from tunewright_hf.losses.chunked_cross_entropy import IGNORED
from tunewright_hf.losses.sequence_scores import last_known, scores_at_the_end
from tunewright_hf.training.fit import fit
from tunewright_hf.training.preference import AnswersTrainer, LossOutput, pair_metrics
from tunewright_hf.training.stage_trainer import Batch
from tunewright_reward import Reward


def train(run: RunContext, request: TrainRequest, options: Any, stage: str) -> StageResult:
    """Train on preference rows, and save. Raises as `fit` does."""
    make = partial(RewardTrainer, options=options)
    return fit(run, request, make, stage=stage, template=run.plugin("template"))


class RewardTrainer(AnswersTrainer):
    metrics = Reward.eval_metrics[1:]

    def outcome(self, forward: Any, batch: Batch) -> LossOutput:
        # a medium that is not trained may follow: see MediaRows.completed
        last = last_known(batch["labels"] != IGNORED)
        rewards = scores_at_the_end(self.model, forward, batch["inputs"], last).view(2, -1)
        loss = bradley_terry(rewards, batch.get("margin", 0.0), self.options.center_coefficient)
        return LossOutput(loss, pair_metrics(rewards))


def bradley_terry(rewards: Tensor, margin: Tensor | float, center_coefficient: float) -> Tensor:
    """Losses (B,) from the scores of the answers (2, B); chosen answers first. margin: (B,)."""
    chosen, rejected = rewards
    return -logsigmoid(chosen - rejected - margin) + center_coefficient * (chosen + rejected) ** 2
