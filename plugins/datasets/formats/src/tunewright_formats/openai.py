"""Format openai: messages with role and content, as in the chat completions API and chat
templates."""

from collections.abc import Iterator
from typing import Any, ClassVar

from tunewright import Format, RowError, hookimpl
from tunewright.types import (
    Conversation,
    MediaPart,
    Message,
    Part,
    Row,
    RowKind,
    RowsRequest,
    TextPart,
)
from tunewright_formats.arrow_nulls import without_nulls
from tunewright_formats.conversation import (
    LOSS_KEYS,
    REASONING,
    TOOL_COLUMNS,
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
from tunewright_formats.media import MEDIA_COLUMNS, Kind, media_part
from tunewright_formats.record_reader import RecordReader, check_names, convert

COLUMNS = ("messages", "system", *TOOL_COLUMNS, "chat_template_kwargs", *MEDIA_COLUMNS)
#: our name of a role or key → its names in sources; `tags` renames the first
TAGS = {
    "role": ("role",),
    "content": ("content",),
    "system": ("system", "developer"),
    "user": ("user",),
    "assistant": ("assistant",),
    "tool": ("tool", "function"),
}
#: type of a content part → kind of medium
MEDIA_TYPES: dict[str, Kind] = {
    "image": "image",
    "image_url": "image",
    "video": "video",
    "video_url": "video",
    "audio": "audio",
    "audio_url": "audio",
}
#: keys of a message that are read, besides role and content
_KEYS: dict[str, tuple[str, ...]] = {
    "assistant": (*LOSS_KEYS, *REASONING, "tool_calls", "function_call"),
    "tool": (*LOSS_KEYS, "tool_call_id", "name"),
}
_PART_VALUES = ("value", "path", "url")  # keys of a part that may hold its value


class OpenAi(Format):
    """Records with `messages` by system (or developer), user, assistant and tool, and optionally
    `tools` (or `functions`), `system`, `images`, `videos`, `audios`, `objects`, and
    `chat_template_kwargs` for the template.

    content is a text or a list of parts (text, image_url, …); a part without a file, such as
    {type: image}, takes the next one of `images`. The assistant may have `tool_calls`
    (or `function_call`) and thinking in `reasoning_content`, `reasoning` or `thinking`. Any message
    may have a loss weight (true, false or a number) in `weight`, `loss_weight`, `train`,
    `training`, `trainable` or `loss`.
    """

    rows: ClassVar[tuple[RowKind, ...]] = ("messages",)

    @staticmethod
    def matches(record: Any) -> bool:
        turns = record.get("messages") if isinstance(record, dict) else None
        return is_turns(turns, "role") and not unanswered(turns, "role") and not compared(record)

    @hookimpl
    def convert_rows(self, request: RowsRequest) -> Iterator[Row | RowError]:
        reader = RecordReader(request, COLUMNS, ("messages",))
        check_names(request.tags, tuple(TAGS), "tags")
        turns = Turns(spellings(request.tags, TAGS), reader)
        return convert(self, request, reader, lambda record: _convert(record, turns))


def _convert(source: Any, turns: "Turns") -> Conversation:
    reader = turns.reader
    record, names = reader.read(source), reader.names
    row = conversation(*turns.read(record["messages"], names["messages"]), record, reader)
    if (variables := record["chat_template_kwargs"]) is not None:
        found = mapping(variables, names["chat_template_kwargs"])
        row.variables = without_nulls(found) if reader.padded else found
    return row


class Turns:
    """Reads lists of messages in the notation of a source."""

    def __init__(self, tags: dict[str, tuple[str, ...]], reader: RecordReader) -> None:
        self.reader = reader
        self.role_key, self.content_key = tags["role"][0], tags["content"][0]
        self._roles = {
            spelt: role
            for role, spelt_as in tags.items()
            if role not in ("role", "content")
            for spelt in spelt_as
        }
        own = (self.role_key, self.content_key)
        self._keys = {
            role: frozenset((*own, *_KEYS.get(role, LOSS_KEYS))) for role in self._roles.values()
        }

    def read(self, turns: Any, at: str) -> tuple[list[Message], list[str]]:
        """Messages of a list, and the record's field name of each."""
        messages: list[Message] = []
        fields: list[str] = []
        for index, item in enumerate(listing(turns, at)):
            field = f"{at}[{index}]"
            value = mapping(item, field)
            written = value.get(self.role_key)
            role = self._roles.get(written) if isinstance(written, str) else None
            if role is None:
                expected = ", ".join(self._roles)
                bad(f"{field}.{self.role_key}", f"found {describe(written)}, expected {expected}")
            self.reader.keys(value, self._keys[role])
            messages.append(self._message(role, value, field))
            fields.append(field)
        return messages, fields

    def _message(self, role: Any, value: dict[str, Any], field: str) -> Message:
        message = Message(role, weight=loss_weight(value, field))
        content, at = value.get(self.content_key), f"{field}.{self.content_key}"
        if isinstance(content, list):
            self._read_parts(message, content, at)
        else:
            message.content = optional_text(content, at)
        if role == "assistant":
            self._read_assistant(message, value, field)
            if not (message.content or message.tool_calls):
                bad(at, f"found {describe(content)}, expected text")
        elif role == "user" and not message.content and content != "":
            bad(at, f"found {describe(content)}, expected text")
        elif role == "tool":
            call = optional_text(value.get("tool_call_id"), f"{field}.tool_call_id")
            message.tool_call_id = call or None
            message.name = optional_text(value.get("name"), f"{field}.name") or None
        return message

    def _read_assistant(self, message: Message, value: dict[str, Any], field: str) -> None:
        if calls := value.get("tool_calls"):
            message.tool_calls += [
                tool_call(call, f"{field}.tool_calls[{index}]", self.reader)
                for index, call in enumerate(listing(calls, f"{field}.tool_calls"))
            ]
        if call := value.get("function_call"):  # the API's older form of tool_calls
            message.tool_calls.append(tool_call(call, f"{field}.function_call", self.reader))
        if message.reasoning is None:
            message.reasoning = reasoning(value, f"{field}.", self.reader)

    def _read_parts(self, message: Message, parts: list[Any], field: str) -> None:
        """Read content given as a list of parts; in some sources these include the assistant's
        reasoning and tool calls."""
        found: list[Part] = []
        for index, item in enumerate(parts):
            at = f"{field}[{index}]"
            part = mapping(item, at)
            kind: Any = part.get("type")
            if not isinstance(kind, str):
                bad(f"{at}.type", f"found {describe(kind)}, expected {_KNOWN_PARTS}")
            names = (kind, *_PART_VALUES)
            self.reader.keys(part, frozenset(("type", *names)), f"{self.content_key}.")
            value = next((part[key] for key in names if part.get(key) is not None), None)
            if kind == "text":
                found.append(TextPart(optional_text(value, f"{at}.text")))
            elif medium := _media_part(kind, value, at):
                found.append(medium)
            elif kind in ("reasoning", "thinking") and message.role == "assistant":
                message.reasoning = (message.reasoning or "") + text(value, at)
            elif kind == "tool_call" and message.role == "assistant":
                message.tool_calls.append(tool_call(from_json(value, at), at, self.reader))
            else:
                bad(f"{at}.type", f"found {describe(kind)}, expected {_KNOWN_PARTS}")
        if len(found) == 1 and isinstance(found[0], TextPart):
            message.content = found[0].text
        else:
            message.content = found or ""


_KNOWN_PARTS = ", ".join(("text", *MEDIA_TYPES, "input_audio"))


def _media_part(kind: str, value: Any, at: str) -> MediaPart | None:
    """A medium; without a path if the part names none, and a column holds it."""
    if medium := MEDIA_TYPES.get(kind):
        return MediaPart(medium, "") if value is None else media_part(value, medium, f"{at}.{kind}")
    if kind == "input_audio":
        audio = mapping(value, f"{at}.input_audio")
        data, form = (text(audio.get(key), f"{at}.input_audio.{key}") for key in ("data", "format"))
        return MediaPart("audio", f"data:audio/{form};base64,{data}")
    return None
