"""NEFTune: noise on the embeddings of training examples."""

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING

from pydantic import Field

from tunewright import PluginOptions, Problem, hookimpl
from tunewright.plugin import Accelerator
from tunewright.types import RunContext, StageResult, TrainRequest

if TYPE_CHECKING:
    from tunewright.check import Resolved


class Neftune(Accelerator):
    """Adds uniform noise to the embeddings of training examples (NEFTune; Jain et al. 2023,
    arXiv:2310.05914), against overfitting of instruction tuning. Evaluation, sampling and reference
    models have none.

    The noise depends on the recipe's seed, the step and the rank: a resumed run ends with the same
    weights. It costs no memory and next to no time.
    """

    class Options(PluginOptions):
        alpha: float = Field(5.0, gt=0, le=1e3)
        """Scale of the noise, neftune_noise_alpha elsewhere: each number is uniform between -1 and
        1, times alpha / sqrt(L d), for L tokens of the example and d numbers per embedding. The
        paper tries 5, 10 and 15."""

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        for stage in recipe.stages:
            if stage.choice.plugin.rows == "prompts":
                yield Problem(
                    self.at,
                    f"{stage.choice.entry.name} compares log-probabilities in training with those "
                    "of its rollouts, which have no noise",
                    "take neftune out of the recipe, or train this stage in a run of its own",
                )

    @hookimpl(wrapper=True)
    def train_stage(
        self, run: RunContext, request: TrainRequest
    ) -> Generator[None, StageResult, StageResult]:
        from tunewright_neftune.noise import Noise

        noise = Noise(self.options.alpha, request.training.seed, run.rank)
        with noise.added(request.loaded.model):
            return (yield)
