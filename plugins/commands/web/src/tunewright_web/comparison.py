"""Comparison of runs: curves on one axis, fields of recipes that differ, and results."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright_web.errors import WebError

if TYPE_CHECKING:
    from tunewright_web.run import Run
    from tunewright_web.web import Web

__all__ = ["MOST", "Comparison", "compare", "curves"]

MOST = 8  # runs
_POINTS = 800  # of a curve
_PLACES = ("output", "data_root")  # fields that say where, not what
_FIRST = ("loss", "eval_loss", "reward")  # metrics that are shown first


@dataclass(frozen=True, slots=True)
class Comparison:
    """recipes, results: name of the field or metric, and the value of each run; None: it has none.
    metrics: those that have a curve."""

    runs: list["Run"]
    recipes: list[tuple[str, list[str | None]]]
    results: list[tuple[str, list[float | None]]]
    metrics: list[str]


def compare(web: "Web", names: list[str]) -> Comparison:
    """Compare two to eight runs. Raises WebError."""
    chosen = list(dict.fromkeys(names))
    if not 2 <= len(chosen) <= MOST:
        raise WebError(f"{len(chosen)} runs are chosen", f"choose 2 to {MOST}", status=422)
    runs = [web.runs.get(name) for name in chosen]
    metrics = {name: None for run in runs for name in web.runs.index(run.name).series}
    return Comparison(
        runs,
        _differing([dict(_fields(run.state.get("recipe"))) for run in runs]),
        _results(runs),
        sorted(metrics, key=lambda name: (_rank(name), name)),
    )


def curves(web: "Web", names: list[str], metric: str) -> dict[str, dict[str, list[Any]]]:
    """Of each run: step, value, seconds and tokens. Raises WebError."""
    found: dict[str, dict[str, list[Any]]] = {}
    for name in names:
        series = web.runs.index(name).series.get(metric)
        points = series.points(_POINTS) if series else []
        found[name] = {
            "step": [point.step for point in points],
            "value": [point.value for point in points],
            "seconds": [round(point.seconds, 3) for point in points],
            "tokens": [point.tokens for point in points],
        }
    return found


def _rank(name: str) -> int:
    if name in _FIRST:
        return _FIRST.index(name)
    return len(_FIRST) + (0 if name.endswith("/loss") else 1)


def _differing(flat: list[dict[str, str]]) -> list[tuple[str, list[str | None]]]:
    """Fields that are not alike in all recipes."""
    found = []
    for name in dict.fromkeys(name for each in flat for name in each):
        values = [each.get(name) for each in flat]
        if len(set(values)) > 1 and name.partition(".")[0] not in _PLACES:
            found.append((name, values))
    return found


def _fields(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Fields of a recipe by dotted path."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _fields(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for number, item in enumerate(value):
            yield from _fields(item, f"{path}.{number}")
    elif value is not None and path:
        yield path, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _results(runs: list["Run"]) -> list[tuple[str, list[float | None]]]:
    """Last metrics of training, and those of evaluations."""
    each = [{**_trained(run), **_evaluated(run.folder)} for run in runs]
    names = dict.fromkeys(name for found in each for name in found)
    return [(name, [found.get(name) for found in each]) for name in names]


def _trained(run: "Run") -> dict[str, float]:
    found: dict[str, float] = {}
    stages = run.state.get("stages")
    for number, stage in enumerate(stages if isinstance(stages, list) else [], 1):
        if isinstance(stage, dict):
            prefix = f"{number}-{stage.get('name')} " if len(run.stages) > 1 else ""
            metrics = stage.get("metrics")
            more = metrics if isinstance(metrics, dict) else {}
            for name in ("steps", "tokens", "rows"):
                more = {**more, name: stage.get(name)}
            found |= {f"{prefix}{name}": v for name, v in more.items() if _is_number(v)}
    return found


def _evaluated(folder: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for file in sorted(folder.glob("evaluations/*/results.json")):
        try:
            metrics = json.loads(file.read_text("utf-8"))["metrics"].items()
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        found |= {f"{file.parent.name}: {name}": v for name, v in metrics if _is_number(v)}
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
