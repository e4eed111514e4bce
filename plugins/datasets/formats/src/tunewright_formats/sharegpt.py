"""sharegpt: a list of turns with `from` and `value`."""

from collections.abc import Iterator
from typing import Any, ClassVar

from tunewright import Format, RowError, hookimpl
from tunewright.errors import did_you_mean
from tunewright.types import Conversation, Message, Row, RowKind, RowsRequest
from tunewright_formats.conversation import MEDIA_COLUMNS, conversation, loss_weight, tool_call
from tunewright_formats.fields import (
    Columns,
    bad,
    check_names,
    compared,
    convert,
    describe,
    from_json,
    is_turns,
    listing,
    mapping,
    optional_text,
    spellings,
    text,
    unanswered,
)

COLUMNS = ("conversations", "system", "tools", *MEDIA_COLUMNS)
#: our name of a role or key → what sources call it; the first is the one that tags rename
TAGS = {
    "role": ("from",),
    "content": ("value",),
    "system": ("system",),
    "user": ("human", "user"),
    "assistant": ("gpt", "assistant"),
    "function_call": ("function_call",),
    "observation": ("observation", "tool"),
}


class ShareGpt(Format):
    """Records with `conversations`, a list of turns `{from, value}` by system, human, gpt,
    function_call and observation, and if you like `system`, `tools`, `images`, `videos`, `audios`.

    function_call holds a JSON object `{name, arguments}`, or a list of them; after a gpt turn it
    joins that turn. A turn may have `weight` (a number) or `train` (true or false).
    """

    rows: ClassVar[tuple[RowKind, ...]] = ("messages",)

    @staticmethod
    def matches(record: Any) -> bool:
        turns = record.get("conversations") if isinstance(record, dict) else None
        return is_turns(turns, "from") and not unanswered(turns, "from") and not compared(record)

    @hookimpl
    def convert_rows(self, request: RowsRequest) -> Iterator[Row | RowError]:
        columns = Columns(COLUMNS, ("conversations",), request.columns)
        check_names(request.tags, tuple(TAGS), "tags")
        tags = spellings(request.tags, TAGS)
        return convert(self, request, lambda record: _convert(record, columns, tags))


def _convert(source: Any, columns: Columns, tags: dict[str, tuple[str, ...]]) -> Conversation:
    record, names = columns.read(source), columns.names
    return conversation(
        *read_turns(record["conversations"], names["conversations"], tags), record, names
    )


def read_turns(
    turns: Any, at: str, tags: dict[str, tuple[str, ...]]
) -> tuple[list[Message], list[str]]:
    """The messages of a list, and what the record calls each of them."""
    role_key, content_key = tags["role"][0], tags["content"][0]
    kinds = {
        spelt: kind
        for kind, spelt_as in tags.items()
        if kind not in ("role", "content")
        for spelt in spelt_as
    }
    messages: list[Message] = []
    fields: list[str] = []
    for index, item in enumerate(listing(turns, at)):
        field = f"{at}[{index}]"
        turn = mapping(item, field)
        for key in (role_key, content_key):
            if key not in turn:
                bad(field, f"has no {key!r}", did_you_mean(key, turn))
        kind = kinds.get(turn[role_key]) if isinstance(turn[role_key], str) else None
        if kind is None:
            bad(
                f"{field}.{role_key}",
                f"found {describe(turn[role_key])}, expected {', '.join(kinds)}",
            )
        message = _message(kind, turn[content_key], f"{field}.{content_key}")
        message.weight = loss_weight(turn, field)
        if kind == "function_call" and messages and messages[-1].role == "assistant":
            if messages[-1].weight != message.weight:
                bad(field, "has another loss weight than the turn of gpt that it belongs to")
            messages[-1].tool_calls.extend(message.tool_calls)
        else:
            messages.append(message)
            fields.append(field)
    return messages, fields


def _message(kind: str, value: Any, field: str) -> Message:
    if kind == "function_call":
        written = from_json(text(value, field), field)
        calls = written if isinstance(written, list) else [written]
        return Message(
            "assistant", tool_calls=[tool_call(call, field) for call in listing(calls, field)]
        )
    if kind == "observation":
        return Message("tool", optional_text(value, field))
    if kind == "system":
        return Message("system", optional_text(value, field))
    return Message("user" if kind == "user" else "assistant", text(value, field))
