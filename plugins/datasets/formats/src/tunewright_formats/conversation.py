"""What the conversation formats share: tools, tool calls, media, loss weights, and how a
conversation ends.

Who may speak after whom is the template's to say (its `role_order`): it knows what it can write.
"""

import re
from typing import Any

from tunewright.types import Conversation, MediaPart, Message, TextPart, ToolCall
from tunewright_formats.arrow_nulls import schema_without_nulls, without_nulls
from tunewright_formats.fields import (
    bad,
    describe,
    from_json,
    listing,
    mapping,
    optional_text,
    text,
)
from tunewright_formats.record_reader import RecordReader

MEDIA = {"images": "image", "videos": "video", "audios": "audio"}  # column → kind of its items
MEDIA_COLUMNS = tuple(MEDIA)
TOOL_COLUMNS = ("tools", "functions")
#: keys of a message that say how much it is trained
LOSS_KEYS = ("weight", "loss_weight", "train", "training", "trainable", "loss")
WEIGHTS = (1e-6, 1e6)  # a loss weight other than 0
#: keys of the thinking; of several the first is read
REASONING = ("reasoning_content", "reasoning", "thinking")
_TOOL_KEYS = frozenset(("type", "function"))
_CALL_KEYS = frozenset(("id", "type", "index", "function", "name", "arguments"))
_MARK = re.compile("<(image|video|audio)>")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")  # also the drive letters of Windows


def tools(record: dict[str, Any], reader: RecordReader) -> list[dict[str, Any]]:
    """Tools in OpenAI's JSON schema, from a list or its JSON text; a bare function gets its
    wrapper. Without tools `functions` is read, where it holds definitions."""
    field = reader.names["tools"]
    value = record["tools"]
    if record.get("functions"):
        if value or not _are_functions(record["functions"]):
            reader.leave(record, ("functions",))
        else:
            field, value = reader.names["functions"], record["functions"]
    found = from_json(value, field) if value else None
    if not found:
        return []
    padded = reader.padded and not isinstance(value, str)
    return [
        _tool(tool, f"{field}[{index}]", reader, padded)
        for index, tool in enumerate(listing(found, field))
    ]


def _tool(value: Any, at: str, reader: RecordReader, padded: bool) -> dict[str, Any]:
    tool = mapping(value, at)
    if tool.get("function"):
        function = mapping(tool["function"], at)
        reader.keys(tool, _TOOL_KEYS, "tools.")
    else:
        function = {key: item for key, item in tool.items() if (key, item) != ("type", "function")}
    text(function.get("name"), f"{at}.name")
    if padded:
        function = {
            key: schema_without_nulls(item) if key == "parameters" else without_nulls(item)
            for key, item in function.items()
            if item is not None
        }
    return {"type": "function", "function": function}


def _are_functions(value: Any) -> bool:
    """Whether a column is the API's form before `tools`, and nothing else of that name."""
    if isinstance(value, str):
        value = from_json(value, "functions") if value.lstrip().startswith("[{") else None
    return isinstance(value, list) and all(
        isinstance(item, dict) and isinstance(item.get("name"), str) for item in value
    )


def tool_call(value: Any, field: str, reader: RecordReader) -> ToolCall:
    """A call as `{name, arguments}`, bare or below `function`; arguments are an object or its JSON
    text."""
    call = mapping(value, field)
    reader.keys(call, _CALL_KEYS, "tool_calls.")
    function = call.get("function")
    inner, at = (
        (mapping(function, f"{field}.function"), f"{field}.function") if function else (call, field)
    )
    if function:
        reader.keys(inner, _CALL_KEYS, "tool_calls.function.")
    written = inner.get("arguments")
    arguments = {} if written is None or written == "" else from_json(written, f"{at}.arguments")
    if reader.padded and isinstance(written, dict):
        arguments = without_nulls(written)
    identity = optional_text(call.get("id"), f"{field}.id") or None
    return ToolCall(
        text(inner.get("name"), f"{at}.name"), mapping(arguments, f"{at}.arguments"), identity
    )


def loss_weight(message: dict[str, Any], field: str) -> float | None:
    """A message's own loss weight, under any of the names that people use: true or false, or a
    number."""
    if message.keys().isdisjoint(LOSS_KEYS):
        return None
    given = {key: message[key] for key in LOSS_KEYS if message.get(key) is not None}
    weights = {key: _weight(value, f"{field}.{key}") for key, value in given.items()}
    if len(set(weights.values())) > 1:
        bad(field, f"has {' and '.join(given)} that differ, expected one of them")
    return next(iter(weights.values()), None)


def _weight(value: Any, field: str) -> float:
    if isinstance(value, bool):
        return float(value)
    expected = "expected true, false or a number of 0 or more"
    if not isinstance(value, int | float) or not value >= 0:  # NaN is not
        bad(field, f"found {describe(value)}, {expected}")
    if not (value == 0 or WEIGHTS[0] <= value <= WEIGHTS[1]):  # the loss is float32
        bad(field, f"found {describe(value)}, expected 0 or {WEIGHTS[0]:g} to {WEIGHTS[1]:g}")
    return float(value)


def reasoning(value: dict[str, Any], field: str, reader: RecordReader) -> str | None:
    """The recorded thinking of a message or record; None where there is none. A second one of the
    names counts as not read."""
    given = [key for key in REASONING if value.get(key)]
    if not given:
        return None
    found = text(value[given[0]], f"{field}{given[0]}")
    others = {key: value[key] for key in given[1:] if value[key] != found}
    reader.keys(others, frozenset())
    return found


def reasoning_column(record: dict[str, Any], reader: RecordReader) -> str | None:
    """The same of a record that holds one answer."""
    if not any(record[name] for name in REASONING):
        return None
    name = reader.first(record, REASONING) or ""
    return text(record[name], reader.names[name])


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
    called = open_calls = 0  # without calls, results may answer what a text says: the template's
    ids: set[str] = set()
    for message, field in zip(messages, fields, strict=True):
        if message.role == "assistant":
            called = open_calls = len(message.tool_calls)
            ids = {call.id for call in message.tool_calls if call.id}
        if message.role == "tool":
            open_calls -= 1
            if open_calls < 0 and called:
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
    messages: list[Message], fields: list[str], record: dict[str, Any], reader: RecordReader
) -> Conversation:
    """Finish a conversation: system column, tools, media. `record` has the format's names as
    keys."""
    add_system(messages, fields, record, reader.names)
    check_ends(messages, fields)
    place_media(messages, record, reader.names)
    return Conversation(messages, tools(record, reader))


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
