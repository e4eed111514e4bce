"""Fine-tuning and preference optimization in one stage, without a reference."""

from pydantic import Field

from tunewright import PluginOptions, Stage, hookimpl
from tunewright.types import RunContext, StageResult, TrainRequest
from tunewright_hf.training.metric_names import PAIR_LOGPS, PAIR_REWARDS


class Orpo(Stage):
    """Train on the chosen answers, and raise their odds over the rejected ones (ORPO, Hong et al.
    2024, arXiv:2403.07691). The prompt is not trained. The reward of an answer is beta times the
    mean log-probability of its tokens."""

    rows = "preference"
    eval_metrics = ("loss", *PAIR_REWARDS, *PAIR_LOGPS, "log_odds_ratio", "log_odds_chosen")

    class Options(PluginOptions):
        beta: float = Field(0.1, gt=0)
        """Weight of the odds-ratio loss, added to the chosen completion's mean negative
        log-likelihood per token. The paper calls it lambda."""

    @hookimpl
    def train_stage(self, run: RunContext, request: TrainRequest) -> StageResult:
        from tunewright_orpo.training import train

        return train(run, request, self.options, self.name)
