"""Best evaluation so far, and early stopping."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunewright import RecipeError, RunError
from tunewright.errors import did_you_mean
from tunewright.evaluation import best_metric
from tunewright.words import counted
from tunewright_hf.checkpoints.folder import is_complete

_METRIC = "training.metric_for_best_model"


class EarlyStopping:
    """Compares evaluations. training: recipe.Training. sets: names of the evaluation sets.

    `state` is kept in checkpoints: step, value and metrics of the best evaluation, and the
    evaluations without improvement since (`waited`). Metrics are the same on every rank, and so are
    all decisions. Raises RecipeError if there is nothing to evaluate.
    """

    def __init__(self, training: Any, sets: Sequence[str]) -> None:
        self.training = training
        self.wanted = (
            training.load_best_model_at_end or training.early_stopping_patience is not None
        )
        self.state: dict[str, Any] = {"step": None, "value": None, "metrics": {}, "waited": 0}
        if not self.wanted:
            return
        self.metric = "_".join(best_metric(training, sets))
        rises = training.greater_is_better
        self.rises = not self.metric.endswith("loss") if rises is None else rises

    def judge(self, step: int, metrics: dict[str, dict[str, float]]) -> bool:
        """Whether this evaluation is better than all before. metrics: of each set, by its name.
        Raises RecipeError if no metric has the recipe's name."""
        whole = {
            f"{name}_{key}": value
            for name, found in metrics.items()
            for key, value in found.items()
        }
        if self.metric not in whole:
            hint = did_you_mean(self.metric, whole)
            written = self.training.metric_for_best_model or self.metric
            raise RecipeError(f"no evaluation gives {written!r}", place=_METRIC, hint=hint)
        value, before = whole[self.metric], self.state["value"]
        gain = math.inf if before is None else value - before if self.rises else before - value
        better = gain > 0 and not math.isnan(value)  # NaN is never the best
        improved = better and gain > self.training.early_stopping_threshold
        self.state["waited"] = 0 if improved else self.state["waited"] + 1
        if better:
            self.state |= {"step": step, "value": value, "metrics": whole}
        return better

    @property
    def should_stop(self) -> bool:
        """Whether early stopping has run out of patience."""
        patience = self.training.early_stopping_patience
        return patience is not None and self.state["waited"] >= patience

    def message(self, step: int) -> str:
        """Reason for stopping after this step, for the user."""
        state, least = self.state, self.training.early_stopping_threshold
        than = f"by more than {least:g} " if least else ""
        value = state["value"]
        best = (
            f"best: {value:.4g} at step {state['step']}"
            if value is not None
            else "it was never a number"
        )
        waited = f"in {counted(state['waited'], 'evaluation')}"
        return f"stopped at step {step}: {self.metric} has not improved {than}{waited} ({best})"

    def check(self, folder: Path) -> None:
        """Raise RunError if the best checkpoint, which a resumed training needs, is not in
        `folder`."""
        step = self.state["step"]
        if (
            self.training.load_best_model_at_end
            and step is not None
            and not is_complete(folder / f"step-{step}")
        ):
            hint = "--overwrite begins anew"
            raise RunError(
                "the best checkpoint so far is gone", place=str(folder / f"step-{step}"), hint=hint
            )

    def result(self, last: int) -> tuple[int | None, str, str]:
        """(step, message, level): the step whose weights are the result, and the message about it.
        last: the last step. None: the last weights, as no evaluation gave a finite metric."""
        step, value = self.state["step"], self.state["value"]
        if step is None:
            return (
                None,
                f"{self.metric} was never a number: the result has the weights of step {last}",
                "warning",
            )
        return (
            step,
            f"the result has the weights of step {step}, of {last}: {self.metric} {value:.4g}",
            "info",
        )
