"""Generated answers against those of the data."""

import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from tunewright import RecipeError, RunError
from tunewright.evaluators import EvaluationRequest, EvaluationResult
from tunewright.types import RunContext
from tunewright_evaluators.answers import answered, completed, examples, margin, mean, text_of
from tunewright_evaluators.texts import CorpusMetrics, normalised, rouge, word_f1
from tunewright_hf.predictions.lines import ResultLines

_FENCED = re.compile(r"```(?:json)?\n(.*)\n```", re.DOTALL)
Scores = dict[str, float]


def evaluate(run: RunContext, request: EvaluationRequest, options: Any) -> EvaluationResult:
    """Scores of each row in scores.jsonl, and their means."""
    found = examples(run, options)
    rows = answered(run, request, options, found)
    errors = sum("error" in row for row in rows)
    pairs = [row for row in rows if "label" in row]
    if not pairs:
        problem = "no row has an answer to compare with" if rows else "has no rows"
        raise RecipeError(problem, place=found.sources.title)
    if without := len(rows) - len(pairs) - errors:
        request.say(f"{without} of {len(rows)} rows have no answer to compare with")
    metrics = options.metrics or _default_metrics()
    scored = [row_scores(row, metrics, options.classes) for row in pairs]

    def add(lines: ResultLines) -> None:
        for row, scores in zip(pairs, scored, strict=True):
            if row["row"] not in lines.done:
                lines.add({"row": row["row"], **scores})

    completed(request.folder / "scores.jsonl", {}, add)
    result = _means(scored)
    texts = [(text_of(row["prediction"]), text_of(row["label"])) for row in pairs]
    texts = [(said, wanted) for said, wanted in texts if wanted.strip()]
    if texts:
        result.metrics |= CorpusMetrics(metrics)(texts)
    if options.classes:
        result.metrics["macro_f1"] = macro_f1(texts, options.classes)
    result.rows, result.errors = len(pairs), errors
    return result


def _default_metrics() -> list[str]:
    """All metrics. Raises RunError where their libraries are not installed."""
    try:
        import rouge_score  # noqa: F401
        import sacrebleu  # noqa: F401
    except ImportError as error:
        raise RunError(
            f"bleu, chrf and rouge need {error.name}, which is not installed",
            place="metrics",
            hint="pip install 'tunewright-evaluators[metrics]', or name other metrics, such as "
            "metrics=[exact_match,f1]",
        ) from error
    names = ("exact_match", "accuracy", "f1", "bleu", "chrf", "rouge", "json_valid", "tool_calls")
    return list(names)


def row_scores(row: dict[str, Any], metrics: list[str], classes: list[str] | None) -> Scores:
    """Scores of one row, in percent, by the metrics that apply to it."""
    said, wanted = text_of(row["prediction"]), text_of(row["label"])
    found: Scores = {}
    if wanted.strip():
        for name in (each for each in metrics if each in _TEXT_METRICS):
            found[name] = 100 * _TEXT_METRICS[name](said, wanted)
        if "rouge" in metrics:
            found |= {name: 100 * value for name, value in rouge(said, wanted).items()}
        if classes and "accuracy" in found:
            right = class_of(said, classes) == class_of(wanted, classes) is not None
            found["accuracy"] = 100.0 * right
    if "json_valid" in metrics and isinstance(_json(wanted), dict | list):
        found["json_valid"] = 100.0 * (_json(said) is not None)
    calls = [_calls(row[key]) for key in ("prediction", "label")]
    if "tool_calls" in metrics and any(calls):
        found["tool_calls"] = 100.0 * (calls[0] == calls[1])
        found["tool_names"] = 100.0 * (_names(calls[0]) == _names(calls[1]))
    return found


_TEXT_METRICS: dict[str, Callable[[str, str], float]] = {
    "exact_match": lambda said, wanted: float(said.strip() == wanted.strip()),
    "accuracy": lambda said, wanted: float(normalised(said) == normalised(wanted)),
    "f1": word_f1,
}


def _json(text: str) -> Any:
    """Value of a text that is JSON, bare or in a fenced block; else None."""
    fenced = _FENCED.fullmatch(text.strip())
    try:
        return json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return None


def _calls(message: dict[str, Any]) -> Counter[tuple[str, str]]:
    """Calls of a message, in any order, with their arguments as canonical JSON."""
    calls = [call["function"] for call in message.get("tool_calls", [])]
    return Counter(
        (call["name"], json.dumps(call["arguments"], sort_keys=True, ensure_ascii=False))
        for call in calls
    )


def _names(calls: Counter[tuple[str, str]]) -> Counter[str]:
    names: Counter[str] = Counter()
    for (name, _), count in calls.items():
        names[name] += count
    return names


def class_of(text: str, classes: list[str]) -> str | None:
    """The class that a text names and begins with; None if it names none."""
    said = normalised(text)
    known = sorted(((normalised(name), name) for name in classes), key=lambda each: -len(each[0]))
    return next((name for plain, name in known if said == plain), None) or next(
        (name for plain, name in known if re.match(rf"{re.escape(plain)}(?!\w)", said)), None
    )


def macro_f1(texts: list[tuple[str, str]], classes: list[str]) -> float:
    """Mean of the classes' F1, in percent."""
    pairs = [(class_of(said, classes), class_of(wanted, classes)) for said, wanted in texts]
    values = []
    for name in classes:
        right = sum(said == wanted == name for said, wanted in pairs)
        given = sum(said == name for said, _ in pairs) + sum(wanted == name for _, wanted in pairs)
        values.append(2 * right / given if given else 0.0)
    return 100 * mean(values)


def _means(scored: list[Scores]) -> EvaluationResult:
    """Mean of each metric over the rows that have it."""
    names = dict.fromkeys(name for scores in scored for name in scores)
    values = {name: [each[name] for each in scored if name in each] for name in names}
    return EvaluationResult(
        {name: mean(each) for name, each in values.items()},
        rows=len(scored),
        margins={name: margin(each) for name, each in values.items() if len(each) > 1},
    )
