"""What is done with a row that is longer than max_length. Nothing is cut silently, and no end is
invented: a row that is cut at its end has no end token, one that is cut at its start keeps it."""

import bisect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from tunewright.types import Message, Preference, Prompt, Row, Unpaired
from tunewright_hf.tokenization.encode import Encoded

Policy: TypeAlias = Literal["drop", "end", "start", "turns"]

#: what was done to rows that were kept, by policy
DONE = {
    "end": "were cut at their end",
    "start": "were cut at their start",
    "turns": "lost their oldest turns",
}


def cut(tokens: Encoded, size: int, policy: Policy, bos: int | None) -> Encoded:
    """The first (end) or the last (start) `size` tokens. A BOS stays where it is: at the start."""
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


def _joined(end: Encoded, whole: Encoded) -> Encoded:
    """The first token of the whole, and then the end."""
    weights = whole.loss_weights[:1] + (end.loss_weights or []) if whole.loss_weights else None
    return Encoded(whole.input_ids[:1] + end.input_ids, whole.labels[:1] + end.labels, weights)


def without_oldest(
    messages: list[Message], attempt: Callable[[list[Message]], Any | None]
) -> Any | None:
    """What `attempt` makes of the messages without as few of the oldest turns as it needs to give
    something.

    A turn begins with a user's message; a system message stays. None: even the last turn alone is
    too much.
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
    """Tokens of the prompt with its longest answer."""
    return len(columns["prompt_ids"]) + max(
        (len(columns[name]) for name in _ANSWERS if name in columns), default=0
    )


def cut_pair(
    columns: dict[str, Any], size: int, policy: Policy, bos: int | None
) -> dict[str, Any] | None:
    """The answers without their ends, or the prompt without its start (but for a BOS). None:
    nothing would be left. A prompt that is to be answered has no end to lose: what follows it is
    not known yet."""
    prompt = columns["prompt_ids"]
    answers = {name: columns[name] for name in _ANSWERS if name in columns}
    if policy == "end":
        room = size - len(prompt)
        return (
            columns | {name: ids[:room] for name, ids in answers.items()}
            if answers and room > 0
            else None
        )
    room = size - max((len(ids) for ids in answers.values()), default=0)
    if room < 2:
        return None
    return columns | {
        "prompt_ids": cut(Encoded(prompt, prompt), min(room, len(prompt)), policy, bos).input_ids
    }


def prompt_of(row: Row) -> list[Message]:
    assert isinstance(row, Preference | Unpaired | Prompt)
    return row.messages if isinstance(row, Prompt) else row.prompt


def with_prompt(row: Row, messages: list[Message]) -> Row:
    """The row with another prompt."""
    assert isinstance(row, Preference | Unpaired | Prompt)
    return (
        replace(row, messages=messages)
        if isinstance(row, Prompt)
        else replace(row, prompt=messages)
    )
