"""Picture of a sweep: the metric by trial, and by each field."""

import json
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tunewright_sweep.results import chosen

if TYPE_CHECKING:
    import optuna

    from tunewright_sweep.search import Asked
    from tunewright_sweep.trial import Metric

__all__ = ["draw"]

_COLUMNS = 3


def draw(
    trials: "list[optuna.trial.FrozenTrial]",
    study: "optuna.Study",
    metric: "Metric",
    asked: "Asked",
) -> None:
    """Write results.png. trials: the complete ones, in order."""
    values = [float(each.value or 0.0) for each in trials]
    fields = sorted({name for each in trials for name in each.params})
    count = 1 + len(fields)
    rows = -(-count // _COLUMNS)
    figure = Figure(figsize=(4.2 * min(count, _COLUMNS), 3.2 * rows), layout="constrained")
    axes = [figure.add_subplot(rows, min(count, _COLUMNS), place + 1) for place in range(count)]
    _by_trial(axes[0], [each.number for each in trials], values, metric)
    for axis, name in zip(axes[1:], fields, strict=True):
        with_it = [(each.params, value) for each, value in zip(trials, values, strict=True)]
        points = [(json.loads(chosen(each)[name]), value) for each, value in with_it]
        _by_field(axis, name, points)
    for axis in axes:
        axis.set_ylabel(str(metric))
        axis.grid(alpha=0.3)
    figure.savefig(asked.output / "results.png", dpi=120)


def _by_trial(axis: Axes, numbers: list[int], values: list[float], metric: "Metric") -> None:
    best, so_far = None, []
    for value in values:
        best = value if metric.better(value, best) else best
        so_far.append(best)
    axis.scatter(numbers, values, s=18, label="trial")
    axis.step(numbers, so_far, where="post", color="tab:orange", label="best so far")
    axis.set_xlabel("trial")
    axis.legend()


def _by_field(axis: Axes, name: str, points: list[tuple[Any, float]]) -> None:
    numbers = all(isinstance(value, int | float) and value is not True for value, _ in points)
    if numbers:
        found = [value for value, _ in points]
        axis.scatter(found, [value for _, value in points], s=18)
        if min(found) > 0 and max(found) > 20 * min(found):
            axis.set_xscale("log")
    else:
        texts = [json.dumps(value, ensure_ascii=False)[:24] for value, _ in points]
        axis.scatter(texts, [value for _, value in points], s=18)
    axis.set_xlabel(name)
