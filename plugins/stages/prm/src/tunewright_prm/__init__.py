"""Process reward models, from answers with labelled steps."""

from tunewright import PluginOptions, Stage, hookimpl
from tunewright.types import RunContext, StageResult, TrainRequest


class Prm(Stage):
    """Train a process reward model, which judges each step of an answer (Uesato et al. 2022,
    arXiv:2211.14275; Lightman et al. 2023, arXiv:2305.20050). The prompt is encoded as for
    inference. After each step stands a line break, at which a new head with the outputs wrong and
    right is trained (cross-entropy). transformers loads the result as
    AutoModelForTokenClassification."""

    rows = "stepwise"
    head = "steps"
    eval_metrics = ("loss", "accuracy", "answer_accuracy")
    labels = ("wrong", "right")

    class Options(PluginOptions):
        only_last_step: bool = False
        """Train on the last step of each answer alone, which is an outcome reward model. In
        evaluations all steps count."""

    @hookimpl
    def train_stage(self, run: RunContext, request: TrainRequest) -> StageResult:
        from tunewright_prm.training import train

        return train(run, request, self.options, self.name)
