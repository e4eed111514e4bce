"""Direct preference optimization with several rejected answers for each chosen one."""

from typing import Literal

from pydantic import Field

from tunewright import hookimpl
from tunewright.types import RunContext, StageResult, TrainRequest
from tunewright_hf.training.metric_names import PAIR_REWARDS
from tunewright_hf.training.reference_options import ReferenceOptions, ReferenceStage


class ListwiseDpo(ReferenceStage):
    """Make the best answer likelier than all others of its prompt at once, relative to a reference
    model. With two answers it is stage dpo.

    The reward of an answer is beta times its log-probability minus that of the reference, summed
    over its tokens. The data are answers in order, or a chosen answer with a list of rejected ones.
    """

    rows = "ranked"
    eval_metrics = ("loss", *PAIR_REWARDS)

    class Options(ReferenceOptions):
        loss: Literal["softmax", "plackett_luce"] = "softmax"
        """softmax: negative log-probability of the best answer among all, by the softmax of their
        rewards (S-DPO, Chen et al. 2024, arXiv:2406.09215). plackett_luce: of the whole order of
        the answers: the best among all, the second among the rest, and so on (Rafailov et al. 2023,
        arXiv:2305.18290, appendix A.3)."""
        beta: float = Field(0.1, gt=0)
        """Strength of the constraint to the reference: higher keeps the policy closer to it."""

    @hookimpl
    def train_stage(self, run: RunContext, request: TrainRequest) -> StageResult:
        from tunewright_listwise_dpo.training import train

        return train(run, request, self.options, self.name)
