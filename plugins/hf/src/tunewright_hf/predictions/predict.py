"""Answers of an engine to many examples, with many requests in flight."""

import queue
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tunewright import RecipeError, RowError, RunError
from tunewright.inference import Busy, Feature, GenerateRequest, InferenceEngine, Piece
from tunewright.types import RunContext
from tunewright_hf.predictions.examples import Example, Examples, message_json
from tunewright_hf.predictions.lines import ResultLines

__all__ = ["predict", "sampling_settings"]

Done = tuple[Example, list[str], Piece]

#: settings of a request that answers depend on
_SAMPLING = ("max_new_tokens", "temperature", "top_p", "top_k", "seed")

#: kind of a medium → what engines call it
_FEATURES: dict[str, Feature] = {"image": "images", "video": "videos", "audio": "audio"}


def sampling_settings(request: GenerateRequest, engine: InferenceEngine) -> dict[str, Any]:
    """Settings that answers depend on, with the checkpoint's where the request has none."""
    found = {name: getattr(request, name) for name in _SAMPLING}
    for name, value in engine.defaults.given().items():
        if found.get(name) is None:
            found[name] = value
    return found


@dataclass(slots=True)
class _Answer:
    """An answer that is under way."""

    example: Example
    ended: "queue.SimpleQueue[_Answer]"
    text: str = ""
    last: Piece | None = None

    def listen(self, piece: Piece) -> None:
        self.text += piece.text
        if piece.finish_reason is not None:
            self.last = piece
            self.ended.put(self)


def predict(
    run: RunContext,
    engine: InferenceEngine,
    examples: Examples,
    request: GenerateRequest,
    lines: ResultLines,
    *,
    in_flight: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Answer the examples that `lines` does not have, and write a line for each. Returns the number
    of those that failed.

    request: sampling settings; with a seed, each row has its own. in_flight: requests that the
    engine gets at once. Raises RecipeError for media that the engine does not take, RunError if the
    engine fails.
    """
    if examples.media is not None and _FEATURES[examples.media] not in engine.features:
        problem = f"the data has {examples.media}, and this engine takes none"
        raise RecipeError(problem, place=examples.sources.title, hint="choose another --engine")
    ended: queue.SimpleQueue[_Answer] = queue.SimpleQueue()
    before, open_answers = lines.done, 0

    def write() -> None:
        lines.add(_row(run, ended.get()))
        progress(len(lines.done), examples.count)

    progress(len(before), examples.count)
    for number, example in enumerate(examples, 1):
        if number in before:
            continue
        if isinstance(example, RowError):
            lines.add({"row": number, "error": str(example)})
            continue
        while open_answers >= in_flight:
            write()
            open_answers -= 1
        seed = None if request.seed is None else request.seed + number
        asked = replace(request, conversation=example.conversation, seed=seed)
        while True:
            try:
                engine.submit(asked, _Answer(example, ended).listen)
            except Busy:
                if not open_answers:
                    raise
                write()
                open_answers -= 1
            except RowError as error:
                lines.add({"row": number, "error": str(error)})
                break
            else:
                open_answers += 1
                break
    for _ in range(open_answers):
        write()
    return sum("error" in row for row in lines.rows())


def _row(run: RunContext, answer: _Answer) -> dict[str, Any]:
    """Line of an answered example."""
    example, last = answer.example, answer.last
    assert last is not None
    if last.unavailable:
        hint = "the same command goes on, with the rows that are left"
        raise RunError(f"the engine was lost: {last.error}", hint=hint)
    if last.finish_reason == "error":
        return {"row": example.number, "error": f"the engine failed: {last.error}"}
    if last.finish_reason == "cancelled":
        raise RunError("the engine has cancelled an answer")
    tools = example.conversation.tools
    said = run.plugin("template").parse_reply(answer.text.strip(), tools)
    row: dict[str, Any] = {
        "row": example.number,
        "prompt": [message_json(message) for message in example.conversation.messages],
        "prediction": message_json(said),
        "text": answer.text,
        "finish_reason": last.finish_reason,
        "tokens": last.completion_tokens,
    }
    if tools:
        row["tools"] = tools
    if example.label is not None:
        row["label"] = message_json(example.label)
    if example.columns:
        row["columns"] = example.columns
    return row
