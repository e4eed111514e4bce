"""Loss of the answers in the data."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tunewright import RecipeError
from tunewright.evaluators import EvaluationRequest, EvaluationResult
from tunewright.types import Data, DataRequest, RowKind, RunContext
from tunewright_evaluators.answers import completed, sources
from tunewright_hf.predictions.lines import ResultLines

_IGNORED = -100
_SET = "evaluated"


def evaluate(run: RunContext, request: EvaluationRequest, options: Any) -> EvaluationResult:
    """Loss of each row, then of all tokens."""
    loaded = run.load_policy()
    data: Data = run.call("dataset", "build_dataset", _data_request(run, loaded, options))
    rows = data.evals[_SET]
    if "media" in rows.column_names and any(map(len, rows["media"])):
        raise RecipeError("has media, which perplexity does not take", place=str(options.data))
    model, pad = loaded.model.eval(), loaded.tokenizer.pad_token_id or 0
    total = len(rows)
    lengths = [len(ids) for ids in rows["input_ids"]]

    def add(lines: ResultLines) -> None:
        left = [place for place in range(total) if place + 1 not in lines.done]
        for places in _batches(left, lengths, options.batch_tokens):
            request.progress("loss", len(lines.done), total)
            batch = [rows[place] for place in places]
            for place, (loss, tokens) in zip(places, _losses(model, batch, pad), strict=True):
                lines.add({"row": place + 1, "loss": loss / max(tokens, 1), "tokens": tokens})
        request.progress("loss", total, total)

    settings = {"data": data.fingerprint}
    written = completed(request.folder / "perplexity.jsonl", settings, add)
    found = [(row["loss"], row["tokens"]) for row in written]
    tokens = sum(number for _, number in found)
    if not tokens:
        raise RecipeError("has no token that would be trained", place=str(options.data))
    loss = sum(value * number for value, number in found) / tokens
    return EvaluationResult(
        {"loss": loss, "perplexity": math.exp(loss), "tokens": tokens},
        rows=len(found),
        higher_is_better={"loss": False, "perplexity": False},
    )


def _data_request(run: RunContext, loaded: Any, options: Any) -> DataRequest:
    """Request for the options' data, as an evaluation set, which is neither split nor mixed."""
    asked = run.data_request(loaded, len(run.recipe.stages) - 1, options.limit)
    found = sources(run, options)
    rows: RowKind = "text" if asked.rows == "text" else "messages"
    return replace(
        asked, entries=found.entries, eval_entries={_SET: found.entries}, rows=rows, root=found.root
    )


def _batches(left: list[int], lengths: list[int], most: int) -> Iterator[list[int]]:
    """Places of rows of like length, with up to `most` tokens."""
    batch: list[int] = []
    for place in sorted(left, key=lambda place: lengths[place]):
        if batch and lengths[place] * (len(batch) + 1) > most:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


@torch.inference_mode()
def _losses(model: Any, rows: list[dict[str, Any]], pad: int) -> list[tuple[float, int]]:
    """Sum of the losses of each row's trained tokens, and their number."""
    device = next(model.parameters()).device
    ids = _padded([row["input_ids"] for row in rows], pad, device)  # (B, T)
    labels = _padded([row["labels"] for row in rows], _IGNORED, device)
    mask = _padded([[1] * len(row["input_ids"]) for row in rows], 0, device)
    logits = model(input_ids=ids, attention_mask=mask).logits  # (B, T, V)
    found = []
    for scores, wanted in zip(logits[:, :-1], labels[:, 1:], strict=True):  # one row: less memory
        losses = functional.cross_entropy(scores.float(), wanted, reduction="none")
        trained = wanted != _IGNORED
        found.append((float(losses[trained].double().sum()), int(trained.sum())))
    return found


def _padded(rows: list[list[int]], value: int, device: torch.device) -> Tensor:
    longest = max(map(len, rows))
    filled = [list(row) + [value] * (longest - len(row)) for row in rows]
    return torch.tensor(filled, device=device)
