"""Format sharegpt: a list of turns with `from` and `value`."""

import re
from collections.abc import Iterator
from typing import Any, ClassVar

from tunewright import Format, RowError, hookimpl
from tunewright.errors import did_you_mean
from tunewright.types import Conversation, Message, Row, RowKind, RowsRequest
from tunewright_formats.conversation import (
    LOSS_KEYS,
    REASONING,
    conversation,
    loss_weight,
    reasoning,
    tool_call,
)
from tunewright_formats.fields import (
    bad,
    compared,
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
from tunewright_formats.media import MEDIA_COLUMNS
from tunewright_formats.record_reader import RecordReader, check_names, convert

COLUMNS = ("conversations", "system", "tools", *MEDIA_COLUMNS)
#: our name of a role or key → its names in sources; `tags` renames the first
TAGS = {
    "role": ("from",),
    "content": ("value",),
    "system": ("system",),
    "user": ("human", "user"),
    "assistant": ("gpt", "assistant"),
    "function_call": ("function_call",),
    "observation": ("observation", "tool"),
}
_ANSWERS = ("assistant", "function_call")
_LOOKED_AT = 50  # keys of a turn that are searched for a similar name
_THINKING = re.compile(r"\s*<think>(.*?)</think>", re.DOTALL)
_TAGGED_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_JSON = re.compile(r"\{|\[\s*\{")


class ShareGpt(Format):
    """Records with `conversations`, a list of turns `{from, value}` by system, human, gpt,
    function_call and observation, and optionally `system`, `tools`, `images`, `videos`, `audios`.

    function_call holds a JSON object `{name, arguments}`, or a list of them, optionally in
    <tool_call> tags; thinking in <think> tags and text before it are kept. After a gpt turn it
    joins that turn. Turns of gpt and function_call may have thinking in `reasoning_content`,
    `reasoning` or `thinking`. Any turn may have a loss weight (true, false or a number) in
    `weight`, `loss_weight`, `train`, `training`, `trainable` or `loss`.
    """

    rows: ClassVar[tuple[RowKind, ...]] = ("messages",)

    @staticmethod
    def matches(record: Any) -> bool:
        turns = record.get("conversations") if isinstance(record, dict) else None
        return is_turns(turns, "from") and not unanswered(turns, "from") and not compared(record)

    @hookimpl
    def convert_rows(self, request: RowsRequest) -> Iterator[Row | RowError]:
        reader = RecordReader(request, COLUMNS, ("conversations",))
        check_names(request.tags, tuple(TAGS), "tags")
        turns = Turns(spellings(request.tags, TAGS), reader)
        return convert(self, request, reader, lambda record: _convert(record, turns))


def _convert(source: Any, turns: "Turns") -> Conversation:
    reader = turns.reader
    record = reader.read(source)
    told = turns.read(record["conversations"], reader.names["conversations"])
    return conversation(*told, record, reader)


class Turns:
    """Reads lists of turns in the notation of a source."""

    def __init__(self, tags: dict[str, tuple[str, ...]], reader: RecordReader) -> None:
        self.reader = reader
        self.role_key, self.content_key = tags["role"][0], tags["content"][0]
        self._kinds = {
            spelt: kind
            for kind, spelt_as in tags.items()
            if kind not in ("role", "content")
            for spelt in spelt_as
        }
        own = frozenset((self.role_key, self.content_key, *LOSS_KEYS))
        answers = own.union(REASONING)
        self._keys = {kind: answers if kind in _ANSWERS else own for kind in self._kinds.values()}

    def read(self, turns: Any, at: str) -> tuple[list[Message], list[str]]:
        """Messages of a list, and the record's field name of each."""
        messages: list[Message] = []
        fields: list[str] = []
        for index, item in enumerate(listing(turns, at)):
            field = f"{at}[{index}]"
            turn = mapping(item, field)
            kind = self._kind(turn, field)
            message = self._message(kind, turn[self.content_key], f"{field}.{self.content_key}")
            message.weight = loss_weight(turn, field)
            if kind in _ANSWERS and message.reasoning is None:
                message.reasoning = reasoning(turn, f"{field}.", self.reader)
            if kind == "function_call" and messages and messages[-1].role == "assistant":
                _join(messages[-1], message, field)
            else:
                messages.append(message)
                fields.append(field)
        return messages, fields

    def _kind(self, turn: dict[str, Any], field: str) -> str:
        for key in (self.role_key, self.content_key):
            if key not in turn:
                like = [name for name in list(turn)[:_LOOKED_AT] if name.isprintable()]
                bad(field, f"has no {key!r}", did_you_mean(key, [name[:40] for name in like]))
        written = turn[self.role_key]
        kind = self._kinds.get(written) if isinstance(written, str) else None
        if kind is None:
            expected = ", ".join(self._kinds)
            bad(f"{field}.{self.role_key}", f"found {describe(written)}, expected {expected}")
        self.reader.keys(turn, self._keys[kind])
        return kind

    def _message(self, kind: str, value: Any, field: str) -> Message:
        if kind == "function_call":
            return self._call(text(value, field), field)
        if kind == "assistant":
            return Message("assistant", text(value, field))
        if kind == "user" and value is None:
            bad(field, f"found {describe(value)}, expected text")
        roles: dict[str, Any] = {"observation": "tool", "system": "system", "user": "user"}
        return Message(roles[kind], optional_text(value, field))

    def _call(self, value: str, field: str) -> Message:
        """Parse calls with the thinking and text before them, like LLaMA-Factory: JSON after
        thinking in tags, or in tags of its own with any text around it."""
        thought = _THINKING.match(value)
        rest = value[thought.end() :] if thought else value
        if tagged := _TAGGED_CALL.findall(rest):
            said = _TAGGED_CALL.sub("", rest)
            written = [from_json(call, field) for call in tagged]
        else:
            start = found.start() if (found := _JSON.search(rest)) else 0
            said, written = rest[:start], [from_json(rest[start:], field)]
        calls = [
            call
            for one in written
            for call in (listing(one, field) if isinstance(one, list) else [one])
        ]
        return Message(
            "assistant",
            said.strip(),
            thought[1].strip("\n") if thought and thought[1].strip() else None,
            [tool_call(call, field, self.reader) for call in calls],
        )


def _join(message: Message, more: Message, field: str) -> None:
    """Add the calls of a turn to the gpt turn that they belong to."""
    if message.weight != more.weight:
        bad(field, "has another loss weight than the turn of gpt that it belongs to")
    if more.reasoning is not None and message.reasoning is not None:
        bad(field, "has thinking, and so has the turn of gpt that it belongs to; expected one")
    message.reasoning = message.reasoning if more.reasoning is None else more.reasoning
    if more.content:
        message.content = f"{message.content}\n{more.content}"
    message.tool_calls.extend(more.tool_calls)
