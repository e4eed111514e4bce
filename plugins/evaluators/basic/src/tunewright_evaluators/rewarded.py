"""Rewards of generated answers."""

import math
from pathlib import Path
from typing import Any

from tunewright import RecipeError
from tunewright.evaluators import EvaluationRequest, EvaluationResult
from tunewright.types import RunContext, TemplateRequest
from tunewright_evaluators.answers import answered, completed, examples, margin, mean, text_of
from tunewright_hf.inference.prompts import media_parts
from tunewright_hf.predictions.examples import Example, Examples
from tunewright_hf.predictions.lines import ResultLines
from tunewright_hf.training import rewards

_BATCH = 16  # answers that are scored together


def evaluate(run: RunContext, request: EvaluationRequest, options: Any) -> EvaluationResult:
    """Reward of each answer in rewards.jsonl, and their mean."""
    check(options.reward)
    found = examples(run, options)
    rows = answered(run, request, options, found)
    values = scores(run, request, options.reward, found, rows, "rewards.jsonl")
    known = [value for value in values.values() if not math.isnan(value)]
    if not known:
        raise RecipeError("gives no answer a score", place="reward")
    return EvaluationResult(
        {"reward": mean(known), "lowest": min(known), "highest": max(known)},
        rows=len(known),
        errors=sum("error" in row for row in rows),
        margins={"reward": margin(known)} if len(known) > 1 else {},
    )


def check(written: str | dict[str, Any]) -> None:
    """Raise RecipeError if there is no such reward, before anything is generated."""
    try:
        rewards.check(_section(written))
    except ValueError as error:
        raise RecipeError(str(error), place="command line: reward") from error


def scores(
    run: RunContext,
    request: EvaluationRequest,
    written: str | dict[str, Any],
    found: Examples,
    rows: list[dict[str, Any]],
    name: str,
) -> dict[int, float]:
    """Rewards by number of row, from a file in the folder; NaN: none is given."""

    def add(lines: ResultLines) -> None:
        left = [row for row in rows if "error" not in row and row["row"] not in lines.done]
        prompts = _prompts(run, found, {row["row"] for row in left})
        reward = rewards.load(
            _section(written), "command line: reward", run, None, from_command_line=True
        )
        columns = dict.fromkeys(key for row in rows for key in row.get("columns", {}))
        for batch in _batches(left):
            given = {key: [row.get("columns", {}).get(key) for row in batch] for key in columns}
            given["prompts"] = [prompts[row["row"]][0] for row in batch]
            if any(media for _, media in prompts.values()):  # as while training
                given["media"] = [prompts[row["row"]][1] for row in batch]
            if "answer" not in given:
                labels = [row.get("label") for row in batch]
                given["answer"] = [label and text_of(label) for label in labels]
            values = reward([row["text"].strip() for row in batch], given)
            for row, value in zip(batch, values, strict=True):
                lines.add({"row": row["row"], "reward": value})
            request.progress("rewards", len(lines.done), len(rows))

    known = completed(request.folder / name, {"reward": written}, add)
    return {
        row["row"]: math.nan if row["reward"] is None else float(row["reward"]) for row in known
    }


def _batches(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    return [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]


def _section(written: str | dict[str, Any]) -> str | dict[str, Any]:
    """A reward's section; for the run folder of a reward model, that of the plugin for it."""
    if isinstance(written, str) and Path(written).expanduser().is_dir():
        return {"name": "reward_model", "path": written}
    return written


def _prompts(run: RunContext, found: Examples, wanted: set[int]) -> dict[int, tuple[str, Any]]:
    """Rendered prompt and its media, as {kind, path}, by number of row."""
    tokenizer = run.load(weights="none").tokenizer
    special = dict(tokenizer.special_tokens_map)
    prompts = {}
    for example in found:
        if isinstance(example, Example) and example.number in wanted:
            asked = TemplateRequest(example.conversation, True, special, tokenizer)
            text = run.call("template", "format_template", asked).text
            media = [
                {"kind": part.kind, "path": part.path} for part in media_parts(example.conversation)
            ]
            prompts[example.number] = text, media
    return prompts
