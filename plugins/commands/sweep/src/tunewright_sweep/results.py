"""Results of a sweep: a table, results.json, results.png and best.yaml."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from optuna.trial import FrozenTrial, TrialState

from tunewright.terminal import printable

if TYPE_CHECKING:
    import optuna

    from tunewright_sweep.search import Asked
    from tunewright_sweep.trial import Metric

__all__ = ["FILES", "best_of", "chosen", "trials_of", "write_results"]

#: what is written beside the study and the trials
FILES = ("best.yaml", "results.json", "results.png")
_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "stopped",
}


def chosen(parameters: dict[str, Any]) -> dict[str, str]:
    """Field → value as JSON, which is YAML too. Choices are JSON texts already."""
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in parameters.items()
    }


def trials_of(study: "optuna.Study") -> list[FrozenTrial]:
    """The trials, without those that a later one has taken up: it has the same folder."""
    found = {each.user_attrs.get("folder", each.number): each for each in study.trials}
    return [each for each in found.values() if each.state != TrialState.WAITING]


def best_of(study: "optuna.Study") -> FrozenTrial | None:
    """The best complete trial; of equal ones the first."""
    done = [each for each in trials_of(study) if each.state == TrialState.COMPLETE]
    sign = -1 if study.direction.name == "MAXIMIZE" else 1
    return min(done, key=lambda each: sign * (each.value or 0.0), default=None)


def write_results(study: "optuna.Study", metric: "Metric", asked: "Asked") -> None:
    """Print the trials, the best first, and write the files."""
    trials, best = trials_of(study), best_of(study)
    rows = [_row(each) for each in trials]
    content = {
        "metric": str(metric),
        "direction": study.direction.name.lower(),
        "best": None if best is None else _row(best),
        "trials": rows,
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    asked.output.joinpath("results.json").write_text(text, "utf-8")
    _print(rows, metric)
    if best is None:
        return
    recipe = asked.output / "best.yaml"
    _write_best(asked, best, recipe)
    from tunewright_sweep.draw import draw

    draw([each for each in trials if each.state == TrialState.COMPLETE], study, metric, asked)
    print(f"{recipe} is the recipe of {best.user_attrs['folder']}")


def _row(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "trial": trial.user_attrs.get("folder"),
        "state": _STATES[trial.state],
        "value": trial.value if trial.state == TrialState.COMPLETE else None,
        "step": trial.user_attrs.get("step"),
        "seconds": trial.user_attrs.get("seconds"),
        "fields": {name: json.loads(value) for name, value in chosen(trial.params).items()},
        "error": trial.user_attrs.get("error") or None,
    }


def _print(rows: list[dict[str, Any]], metric: "Metric") -> None:
    def order(row: dict[str, Any]) -> tuple[bool, float]:
        value = row["value"]
        return value is None, 0.0 if value is None else -value if metric.rises else value

    fields = sorted({name for row in rows for name in row["fields"]})
    table = [["trial", str(metric), "state", *fields]]
    for row in sorted(rows, key=order):
        value = "" if row["value"] is None else f"{row['value']:.6g}"
        settings = [_short(row["fields"].get(name)) for name in fields]
        table.append([str(row["trial"]), value, row["state"], *settings])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        print(printable("  ".join(cells).rstrip()))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _write_best(asked: "Asked", best: FrozenTrial, path: Path) -> None:
    """The resolved recipe of the best trial, with the output of the recipe that was searched."""
    from tunewright.check import resolve
    from tunewright.folder import RECIPE_FILE

    trial = asked.output / "trials" / best.user_attrs["folder"] / RECIPE_FILE
    content = yaml.safe_load(trial.read_text("utf-8"))
    content["output"] = resolve(asked.recipe, list(asked.overrides)).recipe.as_dict()["output"]
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), "utf-8")
