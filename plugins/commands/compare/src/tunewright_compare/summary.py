"""Summary of a run folder: its recipe, metrics, curves and evaluations. Loads no model."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunewright import RecipeError, RunError, folder
from tunewright.state import EVENTS_FILE
from tunewright_hf.predictions.identity import run_digest

#: metrics of training steps that are drawn
_DRAWN = ("loss", "reward")
Curve = dict[int, float]  # step → value


@dataclass(slots=True)
class Evaluation:
    """An evaluation of a run."""

    metrics: dict[str, float]
    margins: dict[str, float]
    lower_is_better: frozenset[str]
    is_current: bool  # False: the run was trained again since
    predictions: Path | None


@dataclass(slots=True)
class RunSummary:
    """A run, as its folder describes it."""

    name: str
    folder: Path
    status: str
    recipe: dict[str, Any]
    training: dict[str, float] = field(default_factory=dict)  # metric → last value
    curves: dict[str, Curve] = field(default_factory=dict)  # title → curve
    evaluations: dict[str, Evaluation] = field(default_factory=dict)


def summarize(path: Path, name: str) -> RunSummary:
    """Summary of a run. Raises RecipeError if the folder is no run folder."""
    state = folder.read(path)
    if not state:
        hint = "give the `output` of a recipe that was trained"
        raise RecipeError("is no run folder", place=str(path), hint=hint)
    found = RunSummary(name, path, str(state["status"]), state["recipe"])
    several = len(state["recipe"].get("stages") or []) > 1
    for number, stage in enumerate(state["stages"], 1):
        prefix = f"{number}-{stage['name']} " if several else ""
        numbers = {key: stage.get(key) for key in ("steps", "tokens", "rows")}
        for key, value in {**numbers, **stage.get("metrics", {})}.items():
            if isinstance(value, int | float):
                found.training[f"{prefix}{key}"] = value
    found.curves = _curves(path / EVENTS_FILE, several)
    digest = run_digest(path)
    for results in sorted(path.glob("evaluations/*/results.json")):
        found.evaluations[results.parent.name] = _evaluation(results, digest)
    return found


def _evaluation(path: Path, digest: str) -> Evaluation:
    try:
        value = json.loads(path.read_text("utf-8"))
        margins, better = value["margins"], value["higher_is_better"]
        metrics = {name: float(each) for name, each in value["metrics"].items() if each is not None}
        current = value["settings"]["run"] == digest
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"is damaged: {' '.join(str(error).split())[:200]}"
        raise RunError(problem, place=str(path), hint="evaluate anew with --overwrite") from error
    lower = frozenset(name for name, higher in better.items() if not higher)
    predictions = path.with_name("predictions.jsonl")
    return Evaluation(
        metrics, margins, lower, current, predictions if predictions.is_file() else None
    )


def _curves(path: Path, several: bool) -> dict[str, Curve]:
    """Curves of all stages. A resumed run's repeated steps count once."""
    curves: dict[str, Curve] = {}
    number = 1
    for event in _lines(path):
        prefix = f"{number}-{event.get('stage')} " if several else ""
        match event.get("event"):
            case "StageStarted":
                number = event["number"]
            case "Logged":
                for metric in _DRAWN:
                    _add(curves, f"{prefix}{metric}", event, metric)
            case "Evaluated":
                for metric in event["metrics"]:
                    _add(curves, f"{prefix}{event['dataset']} {metric}", event, metric)
    return {title: dict(sorted(curve.items())) for title, curve in curves.items()}


def _add(curves: dict[str, Curve], title: str, event: dict[str, Any], metric: str) -> None:
    value = event["metrics"].get(metric)
    if value is not None:
        curves.setdefault(title, {})[event["step"]] = value


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of JSON, without one that is torn."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)
