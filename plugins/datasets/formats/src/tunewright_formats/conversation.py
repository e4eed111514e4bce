"""Shared by the conversation formats: tools, tool calls, loss weights, and the end of a
conversation.

The order of roles is checked by the template (its `role_order`).
"""

from typing import Any

from tunewright.types import Conversation, Message, ToolCall
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
from tunewright_formats.media import place_media
from tunewright_formats.record_reader import RecordReader

TOOL_COLUMNS = ("tools", "functions")
#: keys of a message that hold its loss weight
LOSS_KEYS = ("weight", "loss_weight", "train", "training", "trainable", "loss")
WEIGHTS = (1e-6, 1e6)  # valid loss weights other than 0
#: keys of the thinking; the first one present is read
REASONING = ("reasoning_content", "reasoning", "thinking")
_TOOL_KEYS = frozenset(("type", "function"))
#: keys of a call's arguments: OpenAI's, Llama 3.1's, LangChain's, Anthropic's; of several the first
#: is read
ARGUMENTS = ("arguments", "parameters", "args", "input")
_CALL_KEYS = frozenset(("id", "type", "index", "function", "name", *ARGUMENTS))


def tools(record: dict[str, Any], reader: RecordReader) -> list[dict[str, Any]]:
    """Tools as OpenAI JSON schemas, from a list or its JSON text; a bare function is wrapped.
    Without `tools`, `functions` is read if it holds definitions."""
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
    """Whether a column has the API's older `functions` form, not an unrelated column of that
    name."""
    if isinstance(value, str):
        value = from_json(value, "functions") if value.lstrip().startswith("[{") else None
    return isinstance(value, list) and all(
        isinstance(item, dict) and isinstance(item.get("name"), str) for item in value
    )


def tool_call(value: Any, field: str, reader: RecordReader) -> ToolCall:
    """A call as `{name, arguments}`, bare or below `function`; arguments are an object or its JSON
    text, under any of the names that people use."""
    call = mapping(value, field)
    reader.keys(call, _CALL_KEYS, "tool_calls.")
    function = call.get("function")
    inner, at = (
        (mapping(function, f"{field}.function"), f"{field}.function") if function else (call, field)
    )
    if function:
        reader.keys(inner, _CALL_KEYS, "tool_calls.function.")
    identity = optional_text(call.get("id"), f"{field}.id") or None
    name = text(inner.get("name"), f"{at}.name")
    return ToolCall(name, _arguments(call | inner, at, reader), identity)


def _arguments(call: dict[str, Any], at: str, reader: RecordReader) -> dict[str, Any]:
    given = {key: call[key] for key in ARGUMENTS if call.get(key) not in (None, "")}
    if not given:
        # a call without arguments is one, unless they stand where nobody looks
        if any(isinstance(call[key], dict) for key in call.keys() - _CALL_KEYS):
            expected = f"expected {', '.join(ARGUMENTS[:-1])} or {ARGUMENTS[-1]}"
            bad(at, f"found {describe(call)}, and no arguments: {expected}")
        return {}
    found = {key: from_json(value, f"{at}.{key}") for key, value in given.items()}
    if len(found) > 1 and any(value != next(iter(found.values())) for value in found.values()):
        bad(at, f"has {' and '.join(found)} that differ, expected one of them")
    key, arguments = next(iter(found.items()))
    if reader.padded and isinstance(given[key], dict):
        arguments = without_nulls(given[key])
    return mapping(arguments, f"{at}.{key}")


def loss_weight(message: dict[str, Any], field: str) -> float | None:
    """A message's own loss weight (true, false or a number), under any of the common names."""
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
    if not isinstance(value, int | float) or not value >= 0:  # also rejects NaN
        bad(field, f"found {describe(value)}, {expected}")
    if not (value == 0 or WEIGHTS[0] <= value <= WEIGHTS[1]):  # losses are float32
        bad(field, f"found {describe(value)}, expected 0 or {WEIGHTS[0]:g} to {WEIGHTS[1]:g}")
    return float(value)


def reasoning(value: dict[str, Any], field: str, reader: RecordReader) -> str | None:
    """Thinking of a message or record; None if there is none. Further names of it count as
    unread."""
    given = [key for key in REASONING if value.get(key)]
    if not given:
        return None
    found = text(value[given[0]], f"{field}{given[0]}")
    others = {key: value[key] for key in given[1:] if value[key] != found}
    reader.keys(others, frozenset())
    return found


def reasoning_column(record: dict[str, Any], reader: RecordReader) -> str | None:
    """Like `reasoning`, for a record with one answer."""
    if not any(record[name] for name in REASONING):
        return None
    name = reader.first(record, REASONING) or ""
    return text(record[name], reader.names[name])


def check_ends(messages: list[Message], fields: list[str], answered: bool = True) -> None:
    """Check that tool results answer calls, and that the assistant is last, or not last if not
    `answered`.

    fields: the record's field name of each message, for errors.
    """
    # without calls, results may answer a call written as text: left to the template
    called = open_calls = 0
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
    """Finish a conversation: system column, tools, media. `record` uses the format's column
    names."""
    add_system(messages, fields, record, reader.names)
    check_ends(messages, fields)
    place_media(messages, record, reader)
    return Conversation(messages, tools(record, reader))


def add_system(
    messages: list[Message], fields: list[str], record: dict[str, Any], names: dict[str, str]
) -> None:
    """Insert the text of the system column as the first message, in place."""
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
