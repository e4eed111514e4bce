"""What the conversation formats share: tools, tool calls, media, loss weights, and how a
conversation ends.

Who may speak after whom is the template's to say (its `role_order`): it knows what it can write.
"""

import math
import re
from typing import Any

from tunewright.types import Conversation, MediaPart, Message, TextPart, ToolCall
from tunewright_formats.fields import (
    bad,
    describe,
    from_json,
    listing,
    mapping,
    optional_text,
    text,
)

MEDIA = {"images": "image", "videos": "video", "audios": "audio"}  # column → kind of its items
MEDIA_COLUMNS = tuple(MEDIA)
_MARK = re.compile("<(image|video|audio)>")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")  # also the drive letters of Windows


def tools(value: Any, field: str) -> list[dict[str, Any]]:
    """Tools in OpenAI's JSON schema, from a list or its JSON text; a bare function gets its
    wrapper."""
    found = from_json(value, field) if value else None
    if not found:
        return []
    schemas = []
    for index, tool in enumerate(listing(found, field)):
        at = f"{field}[{index}]"
        function = mapping(mapping(tool, at).get("function") or tool, at)
        text(function.get("name"), f"{at}.name")
        schemas.append({"type": "function", "function": function})
    return schemas


def tool_call(value: Any, field: str) -> ToolCall:
    """A call as `{name, arguments}`, bare or below `function`; arguments are an object or its JSON
    text."""
    call = mapping(value, field)
    function = call.get("function")
    inner, at = (
        (mapping(function, f"{field}.function"), f"{field}.function") if function else (call, field)
    )
    written = inner.get("arguments")
    arguments = {} if written is None or written == "" else from_json(written, f"{at}.arguments")
    identity = optional_text(call.get("id"), f"{field}.id") or None
    return ToolCall(
        text(inner.get("name"), f"{at}.name"), mapping(arguments, f"{at}.arguments"), identity
    )


def loss_weight(message: dict[str, Any], field: str) -> float | None:
    """A message's own loss weight: `weight` or `loss_weight` (a number), or `train` (true or
    false)."""
    given = {
        key: message[key]
        for key in ("weight", "loss_weight", "train")
        if message.get(key) is not None
    }
    if not given:
        return None
    if len(given) > 1:
        bad(field, f"has {' and '.join(given)}, expected one of them")
    key, value = given.popitem()
    if key == "train":
        if not isinstance(value, bool):
            bad(f"{field}.train", f"found {describe(value)}, expected true or false")
        return float(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0:
        bad(f"{field}.{key}", f"found {describe(value)}, expected a number of 0 or more")
    return float(value)


def media_path(value: Any, kind: str, field: str) -> str:
    """A path below the media root, or a data: URL of that kind. Nothing is opened or fetched
    here."""
    path = text(value, field)
    if path.startswith(f"data:{kind}/"):
        return path
    if _SCHEME.match(path):
        bad(
            field,
            f"{describe(path)} is a URL, which is not fetched",
            "save the file below the media folder",
        )
    parts = re.split(r"[/\\]", path)
    if parts[0] in ("", "~") or parts[0].startswith("~") or ".." in parts or "\0" in path:
        bad(field, f"{describe(path)} leads out of the media folder", "give a path below it")
    return path


def place_media(messages: list[Message], record: dict[str, Any], names: dict[str, str]) -> None:
    """Put the media of the record's columns where the texts have <image>, <video> and <audio>, in
    order.

    A kind whose column the record does not have stays text: people may write about `<image>`.
    """
    waiting: dict[str, list[str]] = {}
    for column, kind in MEDIA.items():
        if (value := record[column]) is not None:
            items = value if isinstance(value, list) else [value]
            waiting[kind] = [
                media_path(v, kind, f"{names[column]}[{i}]") for i, v in enumerate(items)
            ]
    if not waiting:
        return
    given = {kind: len(paths) for kind, paths in waiting.items()}
    marks = dict.fromkeys(waiting, 0)
    for message in messages:
        if isinstance(message.content, str):
            message.content = _split(message.content, waiting, marks)
    for column, kind in MEDIA.items():
        if kind in given and given[kind] != marks[kind]:
            bad(
                names[column], f"has {given[kind]}, but the texts have {marks[kind]} times <{kind}>"
            )


def _split(
    content: str, waiting: dict[str, list[str]], marks: dict[str, int]
) -> str | list[TextPart | MediaPart]:
    parts: list[TextPart | MediaPart] = []
    start = 0
    for mark in _MARK.finditer(content):
        kind = mark[1]
        if kind not in waiting:
            continue
        if mark.start() > start:
            parts.append(TextPart(content[start : mark.start()]))
        if waiting[kind]:  # else the count below says what is missing
            parts.append(MediaPart(kind, waiting[kind].pop(0)))  # type: ignore[arg-type]  # one of the three kinds
        marks[kind] += 1
        start = mark.end()
    if not start:
        return content
    if start < len(content):
        parts.append(TextPart(content[start:]))
    return parts


def check_ends(messages: list[Message], fields: list[str], answered: bool = True) -> None:
    """Results of tools answer calls, and the assistant is the last, or, where it is not answered,
    is not.

    fields: what the record calls each message, for the error.
    """
    open_calls = 0
    ids: set[str] = set()
    for message, field in zip(messages, fields, strict=True):
        if message.tool_calls:
            open_calls = len(message.tool_calls)
            ids = {call.id for call in message.tool_calls if call.id}
        if message.role == "tool":
            open_calls -= 1
            if open_calls < 0:
                bad(field, "is one result more than there were calls")
            if ids and message.tool_call_id and message.tool_call_id not in ids:
                bad(
                    f"{field}.tool_call_id",
                    (
                        f"{message.tool_call_id!r} answers no "
                        f"call, expected {' or '.join(sorted(ids))}"
                    ),
                )
    last = messages[-1].role if messages else ""
    if answered and last not in ("", "assistant"):
        bad(fields[-1], f"the last message is from {last}, expected the assistant's answer")
    if not answered and last in ("assistant", "system"):
        bad(
            fields[-1],
            f"the last message is from {last}, expected one from user or tool, to be answered",
        )


def conversation(
    messages: list[Message], fields: list[str], record: dict[str, Any], names: dict[str, str]
) -> Conversation:
    """Finish a conversation: system column, tools, media. `record` has the format's names as
    keys."""
    add_system(messages, fields, record, names)
    check_ends(messages, fields)
    place_media(messages, record, names)
    return Conversation(messages, tools(record["tools"], names["tools"]))


def add_system(
    messages: list[Message], fields: list[str], record: dict[str, Any], names: dict[str, str]
) -> None:
    """Put the text of the system column first, in place."""
    system = optional_text(record["system"], names["system"])
    if not system:
        return
    if not messages or messages[0].role != "system":
        messages.insert(0, Message("system", system))
        fields.insert(0, names["system"])
    elif messages[0].content != system:
        bad(
            names["system"],
            f"says {describe(system)}, and {fields[0]} another system text; expected one",
        )
