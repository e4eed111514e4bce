"""Which evaluation was the best so far, and whether training goes on without a better one."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunewright import RecipeError, RunError
from tunewright.errors import did_you_mean
from tunewright_hf.checkpoints.folder import is_complete

_METRIC = "training.metric_for_best_model"


class EarlyStopping:
    """Judges evaluations. training: recipe.Training. sets: names of the evaluation sets.

    What it knows stands in `state`, which checkpoints keep: step, value and
    metrics of the best evaluation, and how many since then (`waited`) were no improvement. Metrics
    are the same on every process, and so is all that comes of them. Raises RecipeError where there
    is nothing to judge.
    """

    def __init__(self, training: Any, sets: Sequence[str]) -> None:
        self.training, self.one_set = training, len(sets) == 1
        self.wanted = (
            training.load_best_model_at_end or training.early_stopping_patience is not None
        )
        self.state: dict[str, Any] = {"step": None, "value": None, "metrics": {}, "waited": 0}
        if not self.wanted:
            return
        if not sets:
            asks = (
                "load_best_model_at_end"
                if training.load_best_model_at_end
                else "early_stopping_patience"
            )
            hint = "give eval_data, or take it out"
            raise RecipeError(
                "there is no evaluation set to judge by", place=f"training.{asks}", hint=hint
            )
        self.metric = training.metric_for_best_model or f"{sets[0]}_loss"
        if not self.one_set and not self.metric.startswith(tuple(f"{name}_" for name in sets)):
            hint = f"it begins with the name of one: {', '.join(f'{name}_loss' for name in sets)}"
            raise RecipeError(f"{self.metric!r} is of no evaluation set", place=_METRIC, hint=hint)
        rises = training.greater_is_better
        self.rises = not self.metric.endswith("loss") if rises is None else rises

    def judge(self, step: int, metrics: dict[str, dict[str, float]]) -> bool:
        """Whether this evaluation is better than all before. metrics: of each set, by its name.
        Raises RecipeError where none has the name that the recipe gives."""
        whole = {
            f"{name}_{key}": value
            for name, found in metrics.items()
            for key, value in found.items()
        }
        short = (
            {key: value for found in metrics.values() for key, value in found.items()}
            if self.one_set
            else {}
        )
        if self.metric not in whole | short:
            hint = did_you_mean(self.metric, whole)
            raise RecipeError(f"no evaluation gives {self.metric!r}", place=_METRIC, hint=hint)
        value, before = (short | whole)[self.metric], self.state["value"]
        gain = math.inf if before is None else value - before if self.rises else before - value
        better = gain > 0 and not math.isnan(value)  # what is no number is never the best
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
        """Why training stops after this step, for the user."""
        state, least = self.state, self.training.early_stopping_threshold
        than = f"by more than {least:g} " if least else ""
        value = state["value"]
        best = (
            f"best: {value:.4g} at step {state['step']}"
            if value is not None
            else "it was never a number"
        )
        waited = f"in {state['waited']} evaluations"
        return f"stopped at step {step}: {self.metric} has not improved {than}{waited} ({best})"

    def check(self, folder: Path) -> None:
        """Raises RunError where the best checkpoint, which a resumed training will need, is not
        below `folder`."""
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
        """(step, message, level): whose weights the result has, and what is said of it. last: the
        last step. None: the last ones, as no evaluation was any good."""
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
