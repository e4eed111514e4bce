"""Loss of the answers in the data."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional

from tunewright import RecipeError
from tunewright.evaluators import EvaluationRequest, EvaluationResult
from tunewright.types import Data, DataRequest, RowKind, RunContext
from tunewright_evaluators.answers import completed, sources
from tunewright_hf.batching.collators import Padded
from tunewright_hf.losses.chunked_cross_entropy import IGNORED
from tunewright_hf.media.collation import media_rows
from tunewright_hf.predictions.lines import ResultLines
from tunewright_hf.training.stage_trainer import moved

_SET = "evaluated"


def evaluate(run: RunContext, request: EvaluationRequest, options: Any) -> EvaluationResult:
    """Loss of each row, then of all tokens."""
    loaded = run.load_policy()
    data: Data = run.call("dataset", "build_dataset", _data_request(run, loaded, options))
    rows = data.evals[_SET]
    media = media_rows(loaded, data.media_root)
    model, collate = loaded.model.eval(), Padded(loaded.tokenizer.pad_token_id or 0, media=media)
    total = len(rows)
    lengths = [len(ids) for ids in rows["input_ids"]]

    def add(lines: ResultLines) -> None:
        left = [place for place in range(total) if place + 1 not in lines.done]
        for places in _batches(left, lengths, options.batch_tokens):
            request.progress("loss", len(lines.done), total)
            batch = [rows[place] for place in places]
            for place, (loss, tokens) in zip(places, _losses(model, collate(batch)), strict=True):
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
def _losses(model: Any, batch: dict[str, Any]) -> list[tuple[float, int]]:
    """Sum of the losses of each row's trained tokens, and their number."""
    batch = moved(batch, next(model.parameters()).device)
    logits = model(**batch["inputs"]).logits  # (B, T, V)
    found = []
    rows = zip(logits[:, :-1], batch["labels"][:, 1:], strict=True)
    for scores, wanted in rows:  # one row at a time: less memory
        losses = functional.cross_entropy(scores.float(), wanted, reduction="none")
        trained = wanted != IGNORED
        found.append((float(losses[trained].double().sum()), int(trained.sum())))
    return found
