"""Truncation of rows longer than max_length. Truncated rows are counted, and no stop token is
added: a row cut at its end has none, one cut at its start keeps it."""

import bisect
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from tunewright.types import Message, Preference, Prompt, Ranked, Row, Stepwise, Unpaired
from tunewright_hf.tokenization.encode import Encoded

Policy: TypeAlias = Literal["drop", "end", "start", "turns"]

#: notes on changed rows, by policy
DONE = {
    "end": "were cut at their end",
    "start": "were cut at their start",
    "turns": "lost their oldest turns",
}


def cut(tokens: Encoded, size: int, policy: Policy, bos: int | None) -> Encoded:
    """The first (end) or the last (start) `size` tokens. A BOS at the start is kept."""
    if policy == "end":
        keep = range(size)
    elif bos is not None and tokens.input_ids[0] == bos and size > 1:
        return _joined(cut(tokens, size - 1, policy, None), tokens)
    else:
        keep = range(len(tokens.input_ids) - size, len(tokens.input_ids))
    weights = tokens.loss_weights
    return Encoded(
        tokens.input_ids[keep.start : keep.stop],
        tokens.labels[keep.start : keep.stop],
        weights[keep.start : keep.stop] if weights else None,
    )


def pieces(tokens: Encoded, size: int) -> list[Encoded]:
    """A document in pieces of at most `size` tokens; no token is dropped."""
    total = len(tokens.input_ids)
    edges = [*range(0, total, size), total]
    # a lone token has nothing before it to be predicted from
    if len(edges) > 2 and edges[-1] - edges[-2] == 1:
        edges[-2] -= 1
    return [
        Encoded(tokens.input_ids[start:end], tokens.labels[start:end])
        for start, end in itertools.pairwise(edges)
    ]


def _joined(end: Encoded, whole: Encoded) -> Encoded:
    """The first token of the whole row, followed by its end."""
    weights = whole.loss_weights[:1] + (end.loss_weights or []) if whole.loss_weights else None
    return Encoded(whole.input_ids[:1] + end.input_ids, whole.labels[:1] + end.labels, weights)


def without_oldest(
    messages: list[Message], attempt: Callable[[list[Message]], Any | None]
) -> Any | None:
    """Result of `attempt` on the messages without as few of the oldest turns as possible; None if
    even the last turn alone fails.

    A turn starts with a user message; a system message is kept.
    """
    system = [message for message in messages[:1] if message.role == "system"]
    starts = [place for place, message in enumerate(messages) if message.role == "user"][1:]

    def fits(start: int) -> bool:
        return attempt(system + messages[start:]) is not None

    first = bisect.bisect_left(starts, True, key=fits)
    return attempt(system + messages[starts[first] :]) if first < len(starts) else None


# ---- rows of a prompt and answers ----------------------------------------------------------------

_ANSWERS = ("chosen_ids", "rejected_ids", "completion_ids")


def pair_length(columns: dict[str, Any]) -> int:
    """Tokens of the prompt with its longest answer, or with its steps."""
    if "input_ids" in columns:
        return len(columns["input_ids"])
    return len(columns["prompt_ids"]) + max(map(len, _answers(columns)), default=0)


def _answers(columns: dict[str, Any]) -> list[Any]:
    found = [columns[name] for name in _ANSWERS if name in columns]
    return found + list(columns.get("answer_ids", ()))


def cut_pair(
    columns: dict[str, Any], size: int, policy: Policy, bos: int | None
) -> dict[str, Any] | None:
    """Columns with the answers truncated at their ends, or the prompt at its start (keeping a BOS).
    None: nothing would be left. A prompt without answers is never truncated at its end, because the
    answer follows there. Of steps, the whole is truncated."""
    if "input_ids" in columns:
        left = cut(Encoded(columns["input_ids"], columns["labels"]), size, policy, bos)
        kept = columns | {"input_ids": left.input_ids, "labels": left.labels}
        return kept if max(left.labels) >= 0 else None
    prompt, answers = columns["prompt_ids"], _answers(columns)
    if policy == "end":
        room = size - len(prompt)
        return _with_answers(columns, room) if answers and room > 0 else None
    room = size - max(map(len, answers), default=0)
    if room < 2:
        return None
    return columns | {
        "prompt_ids": cut(Encoded(prompt, prompt), min(room, len(prompt)), policy, bos).input_ids
    }


def _with_answers(columns: dict[str, Any], room: int) -> dict[str, Any]:
    """The columns with answers of at most `room` tokens."""
    shorter = {name: columns[name][:room] for name in _ANSWERS if name in columns}
    if "answer_ids" in columns:
        shorter["answer_ids"] = [ids[:room] for ids in columns["answer_ids"]]
    return columns | shorter


def prompt_of(row: Row) -> list[Message]:
    assert isinstance(row, Preference | Ranked | Unpaired | Prompt | Stepwise)
    return row.messages if isinstance(row, Prompt) else row.prompt


def with_prompt(row: Row, messages: list[Message]) -> Row:
    """The row with another prompt."""
    assert isinstance(row, Preference | Ranked | Unpaired | Prompt | Stepwise)
    return (
        replace(row, messages=messages)
        if isinstance(row, Prompt)
        else replace(row, prompt=messages)
    )
