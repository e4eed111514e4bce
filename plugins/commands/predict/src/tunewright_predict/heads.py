"""Predictions of classifiers and rerankers, written to a file."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunewright import RecipeError, RowError, RunError
from tunewright.context import Run
from tunewright.errors import Stopped
from tunewright.terminal import printable, progress_bar
from tunewright.types import (
    DataRequest,
    Embedding,
    Labelled,
    LoadedModel,
    Retrieval,
    Row,
    RowKind,
    Text,
)
from tunewright.words import counted
from tunewright_hf.inference.opened_runs import policy_digest
from tunewright_hf.losses.sequence_scores import outputs_at_the_end
from tunewright_hf.models.modules import base_model
from tunewright_hf.predictions.examples import example_sources
from tunewright_hf.predictions.lines import ResultLines
from tunewright_predict.write import check_output

__all__ = ["answers_with_text", "class_of", "refuse_sampling", "write"]

_LABELLED: tuple[RowKind, ...] = ("labelled", "text")
_RANKED: tuple[RowKind, ...] = ("retrieval",)


def answers_with_text(run: Run) -> bool:
    """Whether a run's model writes answers, and is neither a classifier nor a reranker."""
    return run.policy_head != "classes" and not run.embedding.pair_prompt


def write(
    run: Run, data: str, output: Path, changes: list[str], *, limit: int | None, overwrite: bool
) -> None:
    """Write what the model says of each row: a classifier its label and scores, a reranker the
    scores of the documents. changes: of the run, by the user. Raises RunError if a row has
    failed."""
    check_output(output, overwrite)
    kinds = _LABELLED if run.policy_head == "classes" else _RANKED
    sources = example_sources(run, data)
    request = DataRequest(
        sources.entries, {}, kinds[0], LoadedModel(None, None), 0, root=sources.root, limit=limit
    )
    found = list(run.plugin("dataset").examples(run, request, kinds))[:limit]
    digest = hashlib.sha256(repr(found).encode(errors="replace")).hexdigest()
    settings = {"changes": changes, "run": policy_digest(run), "data": digest}
    loaded = run.load_policy(run.policy_head)
    predict = _predictor(loaded, run.embedding)
    failed = 0
    with ResultLines(output, settings, overwrite=overwrite) as lines, progress_bar() as bar:
        try:
            for number, result in _results(found, predict, lines.done):
                failed += "error" in result
                lines.add({"row": number, **result})
                bar("predict", number, len(found))
        except KeyboardInterrupt:
            problem = f"stopped after {len(lines.done)} of {len(found)} rows"
            raise Stopped(problem, hint="the same command goes on") from None
        lines.finish()
    print(printable(f"{output} holds {counted(len(found), 'row')}"))
    if failed:
        problem = f"{counted(failed, 'row')} of {len(found)} could not be read"
        raise RunError(problem, place=str(output), hint='such lines have "error"')


def _results(
    rows: list[Row | RowError], predict: Callable[[Any], dict[str, Any]], done: frozenset[int]
) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, row in enumerate(rows, 1):
        if number in done:
            continue
        if isinstance(row, RowError):
            yield number, {"error": str(row)}
        elif isinstance(row, Text) and not isinstance(row.text, str):
            yield number, {"error": f"{row.origin}: has media, and only text is classified"}
        else:
            yield number, predict(row)


def _predictor(loaded: LoadedModel, embedding: Embedding) -> Callable[[Any], dict[str, Any]]:
    model, tokenizer = loaded.model.eval(), loaded.tokenizer
    config = base_model(model).config
    device = next(model.parameters()).device

    @torch.inference_mode()
    def outputs(text: str) -> Tensor:  # (N,)
        ids = torch.tensor([tokenizer(text, verbose=False)["input_ids"]], device=device)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return outputs_at_the_end(model, model, inputs)[0].cpu()

    def predict(row: Labelled | Text | Retrieval) -> dict[str, Any]:
        if isinstance(row, Retrieval):
            documents = [row.positive, *row.negatives]
            scores = [float(outputs(embedding.pair(row.query, each))[0]) for each in documents]
            return {"query": row.query, "documents": documents, "scores": scores}
        known = {"label": row.labels} if isinstance(row, Labelled) else {}
        return {"text": row.text} | class_of(outputs(str(row.text)), config) | known

    return predict


def class_of(outputs: Tensor, config: Any) -> dict[str, Any]:
    """`prediction`, and `scores` by name, of outputs (N,). A regression has a number alone."""
    if config.problem_type == "regression":
        return {"prediction": float(outputs[0])}
    several = config.problem_type == "multi_label_classification"
    scores = (outputs.sigmoid() if several else outputs.softmax(0)).tolist()
    names = [config.id2label[n] for n in range(len(scores))]
    named = dict(zip(names, scores, strict=True))
    if several:
        return {"prediction": [name for name in names if named[name] > 0.5], "scores": named}
    return {"prediction": max(names, key=lambda name: named[name]), "scores": named}


def refuse_sampling(given: dict[str, Any]) -> None:
    """Raise RecipeError for settings of text that this model does not write."""
    for name, value in given.items():
        if value is not None:
            option = f"--{name.replace('_', '-')}"
            problem = "this model gives labels or scores, and writes no text"
            raise RecipeError(problem, place=f"command line: {option}", hint="leave it out")
