"""openai: messages with role and content, as the chat completions API and chat templates take
them."""

from collections.abc import Iterator
from typing import Any, ClassVar

from tunewright import Format, RowError, hookimpl
from tunewright.types import Conversation, MediaPart, Message, Row, RowKind, RowsRequest, TextPart
from tunewright_formats.conversation import (
    MEDIA_COLUMNS,
    conversation,
    loss_weight,
    media_path,
    tool_call,
)
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

COLUMNS = ("messages", "system", "tools", "chat_template_kwargs", *MEDIA_COLUMNS)
#: our name of a role or key → what sources call it; the first is the one that tags rename
TAGS = {
    "role": ("role",),
    "content": ("content",),
    "system": ("system", "developer"),
    "user": ("user",),
    "assistant": ("assistant",),
    "tool": ("tool", "function"),
}
#: type of a part → kind of medium
MEDIA_TYPES = {
    "image": "image",
    "image_url": "image",
    "video": "video",
    "video_url": "video",
    "audio": "audio",
    "audio_url": "audio",
}
REASONING = ("reasoning_content", "reasoning", "thinking")


class OpenAi(Format):
    """Records with `messages` by system (or developer), user, assistant and tool, and if you like
    `tools`, `system`, `images`, `videos`, `audios`, and `chat_template_kwargs` for the template.

    content is a text or a list of parts (text, image_url, …); the assistant may have `tool_calls`
    and `reasoning_content`; any message may have `weight` (a number) or `train` (true or false).
    """

    rows: ClassVar[tuple[RowKind, ...]] = ("messages",)

    @staticmethod
    def matches(record: Any) -> bool:
        turns = record.get("messages") if isinstance(record, dict) else None
        return is_turns(turns, "role") and not unanswered(turns, "role") and not compared(record)

    @hookimpl
    def convert_rows(self, request: RowsRequest) -> Iterator[Row | RowError]:
        columns = Columns(COLUMNS, ("messages",), request.columns)
        check_names(request.tags, tuple(TAGS), "tags")
        tags = spellings(request.tags, TAGS)
        return convert(self, request, lambda record: _convert(record, columns, tags))


def _convert(source: Any, columns: Columns, tags: dict[str, tuple[str, ...]]) -> Conversation:
    record, names = columns.read(source), columns.names
    row = conversation(*read_turns(record["messages"], names["messages"], tags), record, names)
    if (variables := record["chat_template_kwargs"]) is not None:
        row.variables = mapping(variables, names["chat_template_kwargs"])
    return row


def read_turns(
    turns: Any, at: str, tags: dict[str, tuple[str, ...]]
) -> tuple[list[Message], list[str]]:
    """The messages of a list, and what the record calls each of them."""
    role_key = tags["role"][0]
    roles = {
        spelt: role
        for role, spelt_as in tags.items()
        if role not in ("role", "content")
        for spelt in spelt_as
    }
    messages: list[Message] = []
    fields: list[str] = []
    for index, item in enumerate(listing(turns, at)):
        field = f"{at}[{index}]"
        value = mapping(item, field)
        written = value.get(role_key)
        role = roles.get(written) if isinstance(written, str) else None
        if role is None:
            bad(f"{field}.{role_key}", f"found {describe(written)}, expected {', '.join(roles)}")
        messages.append(_message(role, value, tags["content"][0], field))
        fields.append(field)
    return messages, fields


def _message(role: Any, value: dict[str, Any], content_key: str, field: str) -> Message:
    message = Message(role, weight=loss_weight(value, field))
    content = value.get(content_key)
    if isinstance(content, list):
        _read_parts(message, content, f"{field}.{content_key}")
    else:
        message.content = optional_text(content, f"{field}.{content_key}")
    if role == "assistant":
        _read_assistant(message, value, field)
    elif role == "tool":
        message.tool_call_id = (
            optional_text(value.get("tool_call_id"), f"{field}.tool_call_id") or None
        )
        message.name = optional_text(value.get("name"), f"{field}.name") or None
    if role in ("user", "assistant") and not (message.content or message.tool_calls):
        bad(f"{field}.{content_key}", f"found {describe(content)}, expected text")
    return message


def _read_assistant(message: Message, value: dict[str, Any], field: str) -> None:
    calls = list(enumerate(value.get("tool_calls") or []))
    message.tool_calls.extend(
        tool_call(call, f"{field}.tool_calls[{index}]") for index, call in calls
    )
    if value.get("function_call"):  # the API's form before tool_calls
        message.tool_calls.append(tool_call(value["function_call"], f"{field}.function_call"))
    for key in REASONING:
        if value.get(key) and message.reasoning is None:
            message.reasoning = text(value[key], f"{field}.{key}")


def _read_parts(message: Message, parts: list[Any], field: str) -> None:
    """Content as a list of parts; some sources have the assistant's reasoning and tool calls among
    them."""
    found: list[TextPart | MediaPart] = []
    for index, item in enumerate(parts):
        at = f"{field}[{index}]"
        part = mapping(item, at)
        kind: Any = part.get("type")
        value = next(
            (part[key] for key in (kind, "value", "path", "url") if part.get(key) is not None), None
        )
        if kind == "text":
            found.append(TextPart(optional_text(value, f"{at}.text")))
        elif kind in MEDIA_TYPES:
            path = value.get("url") if isinstance(value, dict) else value
            medium: Any = MEDIA_TYPES[kind]
            found.append(MediaPart(medium, media_path(path, medium, f"{at}.{kind}")))
        elif kind == "input_audio":
            audio = mapping(value, f"{at}.input_audio")
            data, form = (
                text(audio.get(key), f"{at}.input_audio.{key}") for key in ("data", "format")
            )
            found.append(MediaPart("audio", f"data:audio/{form};base64,{data}"))
        elif kind in ("reasoning", "thinking") and message.role == "assistant":
            message.reasoning = (message.reasoning or "") + text(value, at)
        elif kind == "tool_call" and message.role == "assistant":
            message.tool_calls.append(tool_call(from_json(value, at), at))
        else:
            known = ", ".join(("text", *MEDIA_TYPES, "input_audio"))
            bad(f"{at}.type", f"found {describe(kind)}, expected {known}")
    only_text = len(found) == 1 and isinstance(found[0], TextPart)
    message.content = found[0].text if only_text else found or ""  # type: ignore[union-attr]  # a TextPart then
