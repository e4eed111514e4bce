"""Answers of a run to the examples that an evaluator's options name."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tunewright import RecipeError
from tunewright.evaluators import EvaluationRequest
from tunewright.inference import GenerateRequest
from tunewright.types import LoadedModel, RunContext
from tunewright_hf.predictions.examples import Examples, example_sources
from tunewright_hf.predictions.lines import ResultLines
from tunewright_hf.predictions.predict import predict

_IN_FLIGHT = 64  # requests that an engine gets at once


def examples(run: RunContext, options: Any) -> Examples:
    """Examples of the options' data. Raises RecipeError."""
    return Examples(run, sources(run, options), options.limit)


def sources(run: RunContext, options: Any) -> Any:
    """Sources of the options' data. Raises RecipeError where they name none."""
    if options.data is not None:
        return example_sources(run, options.data)
    asked = run.data_request(LoadedModel(None, None), len(run.recipe.stages) - 1)
    sets = list(asked.eval_entries)
    if len(sets) == 1:
        return example_sources(run, sets[0])
    problem = "the recipe has no eval_data"
    if sets:
        problem = f"the recipe has several sets: {', '.join(sets)}"
    raise RecipeError(problem, place="command line: data", hint=f"data={(sets or ['FILE'])[0]}")


def answered(
    run: RunContext,
    request: EvaluationRequest,
    options: Any,
    found: Examples,
    name: str = "predictions.jsonl",
) -> list[dict[str, Any]]:
    """Lines of the answers to all examples, from a file in the folder, which is written if it is
    not there."""

    def answer(lines: ResultLines) -> None:
        asked = GenerateRequest(
            max_new_tokens=options.max_new_tokens,
            temperature=options.temperature,
            seed=options.seed,
        )
        with request.open_engine(run) as engine:
            given = ", ".join(f"{key} {value}" for key, value in engine.defaults.given().items())
            if given and options.temperature is None:
                request.say(f"the checkpoint's sampling: {given}")
            predict(
                run,
                engine,
                found,
                asked,
                lines,
                in_flight=_IN_FLIGHT,
                progress=lambda done, total: request.progress("answers", done, total),
            )

    return completed(request.folder / name, {"examples": found.digest}, answer)


def completed(
    path: Path, settings: dict[str, Any], add: Callable[[ResultLines], None]
) -> list[dict[str, Any]]:
    """Rows of a file. Where it is not complete, `add` writes those that are not there."""
    if not path.exists():
        with ResultLines(path, settings) as lines:
            add(lines)
            lines.finish()
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def text_of(message: dict[str, Any]) -> str:
    """Text of a message, without media."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def mean(values: Sequence[float]) -> float:
    """The mean; NaN of nothing."""
    return sum(values) / len(values) if values else math.nan


def margin(values: Sequence[float]) -> float:
    """Half width of the 95 % confidence interval of the mean."""
    if len(values) < 2:
        return math.nan
    centre = mean(values)
    variance = sum((value - centre) ** 2 for value in values) / (len(values) - 1)
    return 1.96 * math.sqrt(variance / len(values))
