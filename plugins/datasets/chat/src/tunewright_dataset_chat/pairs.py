"""Tokenise preference, ranked, unpaired, stepwise and prompt rows: a prompt encoded as for
inference, and answers after it."""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from tunewright import RowError
from tunewright.types import (
    Conversation,
    Message,
    Preference,
    Prompt,
    Ranked,
    Rendered,
    Row,
    Span,
    Stepwise,
    Unpaired,
)
from tunewright_dataset_chat.surrogates import encodable
from tunewright_hf.tokenization.encode import Encoded, Tokeniser

#: (conversation, add_generation_prompt) → text; raises RowError
Render = Callable[[Conversation, bool], Rendered]

_IGNORED = -100


def encode_rows(
    rows: Sequence[Row], render: Render, tokeniser: Tokeniser
) -> list[dict[str, Any] | RowError]:
    """One item per row, in order: its columns as `types.Data` names them, or the error.

    prompt_ids are encoded as for inference; prompt_ids + chosen_ids (rejected_ids, completion_ids)
    are the ids of the whole conversation up to its stop token. Nothing is truncated. Preference
    rows also have `margin`, which may be None. Each step is encoded for itself, and so is the line
    break after it, at which it is judged.
    """
    work: list[list[Rendered] | RowError] = []
    for row in rows:
        try:
            work.append(_render(row, render))
        except RowError as error:
            work.append(_placed(error, row))
    encoded = iter(
        _encode([one for found in work if isinstance(found, list) for one in found], tokeniser)
    )
    done: list[dict[str, Any] | RowError] = []
    for row, found in zip(rows, work, strict=True):
        if isinstance(found, RowError):
            done.append(found)
            continue
        tokens = [next(encoded) for _ in found]
        try:
            done.append(_columns(row, tokens))
        except RowError as error:
            done.append(_placed(error, row))
    return done


def _placed(error: RowError, row: Row) -> RowError:
    return RowError(error.problem, place=error.place or str(row.origin), hint=error.hint)


def _render(row: Row, render: Render) -> list[Rendered]:
    """The prompt, then the conversation with each answer."""
    if isinstance(row, Preference):
        prompt, answers = row.prompt, {"chosen": row.chosen, "rejected": row.rejected}
    elif isinstance(row, Ranked):
        prompt = row.prompt
        answers = {f"answers[{n}]": answer for n, answer in enumerate(row.answers)}
    elif isinstance(row, Unpaired):
        prompt, answers = row.prompt, {"completion": row.completion}
    elif isinstance(row, Stepwise):
        asked = render(Conversation(row.prompt, row.tools, origin=row.origin), True)
        return [asked, *(_plain(text) for text in (*row.steps, "\n"))]
    else:
        assert isinstance(row, Prompt)
        prompt, answers = row.messages, {}
    asked = render(Conversation(prompt, row.tools, origin=row.origin), True)
    return [
        asked,
        *(_answered(row, prompt, answer, asked, name, render) for name, answer in answers.items()),
    ]


def _plain(text: str) -> Rendered:
    """A text in which control tokens are plain text."""
    encodable(text)
    return Rendered(text, untrusted=[Span(0, len(text))])


def _answered(
    row: Any,
    prompt: list[Message],
    answer: list[Message],
    asked: Rendered,
    name: str,
    render: Render,
) -> Rendered:
    """The whole conversation, with everything after the prompt as one trained span."""
    if others := [message.role for message in answer if message.role != "assistant"]:
        raise RowError(
            f"{name} has a message from {others[0]}, and all of an answer is trained here"
        )
    whole = render(Conversation([*prompt, *answer], row.tools, origin=row.origin), False)
    start = len(asked.text)
    if not whole.text.startswith(asked.text):
        raise RowError(
            f"the template writes the prompt in another way before {name}",
            hint="take another template",
        )
    before = [span for span in whole.trained if span.end <= start]
    if len(before) == len(whole.trained):
        raise RowError(f"{name} has nothing to train")
    # the answer's own span may start later: after empty thinking, for example, which inference
    # would not have written
    return replace(whole, trained=[*before, Span(start, whole.trained[-1].end)])


def _encode(texts: list[Rendered], tokeniser: Tokeniser) -> list[Encoded | RowError]:
    try:
        return list(tokeniser.encode_batch(texts))
    except RowError:  # find the failing text by encoding one at a time
        return [_one(text, tokeniser) for text in texts]


def _one(text: Rendered, tokeniser: Tokeniser) -> Encoded | RowError:
    try:
        return tokeniser.encode_batch([text])[0]
    except RowError as error:
        return error


def _columns(row: Row, tokens: list[Encoded | RowError]) -> dict[str, Any]:
    for one in tokens:
        if isinstance(one, RowError):
            raise one
    prompt, *answers = (one for one in tokens if isinstance(one, Encoded))
    if isinstance(row, Stepwise):
        return _steps(prompt, answers[:-1], answers[-1], row.labels)
    found = [_after(prompt.input_ids, answer) for answer in answers]
    if isinstance(row, Preference):
        return {
            "prompt_ids": prompt.input_ids,
            "chosen_ids": found[0],
            "rejected_ids": found[1],
            "margin": row.margin,
        }
    if isinstance(row, Ranked):
        return {"prompt_ids": prompt.input_ids, "answer_ids": found}
    if isinstance(row, Unpaired):
        return {"prompt_ids": prompt.input_ids, "completion_ids": found[0], "label": row.label}
    assert isinstance(row, Prompt)
    if "prompt_ids" in row.columns:
        raise RowError("prompt_ids: is a column of the prepared rows, call it otherwise")
    return {"prompt_ids": prompt.input_ids, **row.columns}


def _steps(
    prompt: Encoded, steps: Sequence[Encoded], end: Encoded, known: Sequence[bool]
) -> dict[str, Any]:
    ids, labels = [*prompt.input_ids], [_IGNORED] * len(prompt.input_ids)
    for step, label in zip(steps, known, strict=True):
        own = [*step.input_ids, *end.input_ids]
        ids += own
        labels += [*[_IGNORED] * (len(own) - 1), int(label)]
    return {"input_ids": array("i", ids), "labels": array("i", labels)}


def _after(prompt: "array[int]", whole: Encoded) -> "array[int]":
    """Ids of the answer, without what a template writes after the stop token."""
    if whole.input_ids[: len(prompt)] != prompt:
        raise RowError("the tokenizer encodes the prompt in another way when an answer follows")
    end = max(place for place, label in enumerate(whole.labels) if label != _IGNORED) + 1
    return whole.input_ids[len(prompt) : end]
