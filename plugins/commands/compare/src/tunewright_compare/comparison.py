"""Comparison of runs."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunewright import RecipeError
from tunewright.words import distinct_names
from tunewright_compare.summary import Evaluation, RunSummary, summarize

#: fields of recipes that say where, not what
_PLACES = ("output", "data_root")
_MISSING = "–"


@dataclass(slots=True)
class MetricRow:
    """A metric of all runs. best: places of the best values; none where all are alike, or where
    neither direction is better."""

    name: str
    values: list[float | None]
    margins: list[float | None]
    best: tuple[int, ...] = ()


@dataclass(slots=True)
class Sample:
    """One prompt with all runs' predictions."""

    evaluation: str
    prompt: list[dict[str, Any]]
    label: dict[str, Any] | None
    predictions: list[dict[str, Any]]


@dataclass(slots=True)
class Comparison:
    runs: list[RunSummary]
    metrics: list[MetricRow]
    recipes: list[tuple[str, list[str]]]  # field → value of each run, where they differ
    samples: list[Sample]
    notes: list[str]

    def as_json(self) -> dict[str, Any]:
        names = [run.name for run in self.runs]
        return {
            "runs": names,
            "metrics": {
                row.name: dict(zip(names, row.values, strict=True)) for row in self.metrics
            },
            "recipes": {
                name: dict(zip(names, values, strict=True)) for name, values in self.recipes
            },
            "curves": {run.name: run.curves for run in self.runs},
            "samples": [asdict(sample) for sample in self.samples],
            "notes": self.notes,
        }


def compare(folders: list[Path], samples: int) -> Comparison:
    """Compare run folders. samples: most predictions side by side. Raises RecipeError."""
    if len(folders) < 2:
        raise RecipeError("one run is named", place="command line", hint="name two or more FOLDERs")
    paths = [path.expanduser() for path in folders]
    runs = [summarize(path, name) for path, name in zip(paths, distinct_names(paths), strict=True)]
    notes = [
        f"{run.name}: the evaluation {name} is of an earlier training"
        for run in runs
        for name, each in run.evaluations.items()
        if not each.is_current
    ]
    notes += [f"{run.name} is {run.status}" for run in runs if run.status != "completed"]
    return Comparison(runs, _metrics(runs), _recipes(runs), _samples(runs, samples), notes)


def _metrics(runs: list[RunSummary]) -> list[MetricRow]:
    rows = []
    for name in dict.fromkeys(name for run in runs for name in run.training):
        values = [run.training.get(name) for run in runs]
        lower = True if name.endswith("loss") else None
        rows.append(MetricRow(name, values, [None] * len(runs), _best(values, lower)))
    for evaluation in dict.fromkeys(name for run in runs for name in run.evaluations):
        found = [run.evaluations.get(evaluation) for run in runs]
        rows += _evaluation_rows(evaluation, found)
    return rows


def _evaluation_rows(name: str, found: list[Evaluation | None]) -> Iterator[MetricRow]:
    known = [each for each in found if each is not None]
    for metric in dict.fromkeys(metric for each in known for metric in each.metrics):
        values = [each.metrics.get(metric) if each else None for each in found]
        margins = [each.margins.get(metric) if each else None for each in found]
        lower = any(metric in each.lower_is_better for each in known)
        lower_is_better = None if metric in ("tokens", "lowest", "highest") else lower
        yield MetricRow(f"{name}: {metric}", values, margins, _best(values, lower_is_better))


def _best(values: list[float | None], lower: bool | None) -> tuple[int, ...]:
    known = [value for value in values if value is not None]
    if lower is None or len(known) < 2 or min(known) == max(known):
        return ()
    best = min(known) if lower else max(known)
    return tuple(place for place, value in enumerate(values) if value == best)


def _recipes(runs: list[RunSummary]) -> list[tuple[str, list[str]]]:
    flat = [dict(_fields(run.recipe)) for run in runs]
    names = dict.fromkeys(name for each in flat for name in each)
    found = []
    for name in names:
        values = [each.get(name, _MISSING) for each in flat]
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
    elif value is not None:
        yield path, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _samples(runs: list[RunSummary], most: int) -> list[Sample]:
    """Predictions of evaluations that all runs have, for the same prompts."""
    found: list[Sample] = []
    for name in runs[0].evaluations:
        files = [run.evaluations[name].predictions for run in runs if name in run.evaluations]
        paths = [path for path in files if path is not None]
        if len(paths) < len(runs):
            continue
        for rows in zip(*map(_rows, paths), strict=False):
            if len(found) >= most:
                return found
            prompt = rows[0].get("prompt")
            if prompt is None or any(row.get("prompt") != prompt for row in rows):
                continue
            predictions = [row["prediction"] for row in rows]
            found.append(Sample(name, prompt, rows[0].get("label"), predictions))
    return found


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def message_text(message: dict[str, Any]) -> str:
    """A message as text: thinking, content and tool calls."""
    parts = [f"({message['reasoning_content']})"] if message.get("reasoning_content") else []
    content = message["content"]
    if isinstance(content, str):
        parts.append(content)
    else:
        parts += [part.get("text") or f"[{part['type']}]" for part in content]
    for call in message.get("tool_calls", []):
        arguments = json.dumps(call["function"]["arguments"], ensure_ascii=False)
        parts.append(f"{call['function']['name']}({arguments})")
    return "\n".join(part for part in parts if part)


def number(value: float | None, margin: float | None = None) -> str:
    """A value for people."""
    if value is None:
        return _MISSING
    shown = f"{value:,.0f}" if value == int(value) and abs(value) >= 1000 else f"{value:.4g}"
    return shown if margin is None else f"{shown} ± {margin:.2g}"
