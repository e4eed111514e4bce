"""Conversations in files: one JSON object with messages in OpenAI's format, as rows of training
data have them."""

import json
from pathlib import Path
from typing import Any, get_args

from tunewright import RecipeError
from tunewright.types import MediaPart, Message, Part, Role, TextPart, ToolCall

_MEDIA = ("image", "video", "audio")


def save(path: Path, messages: list[Message], tools: list[dict[str, Any]]) -> None:
    """Write a conversation: a new file, or a line that is added to a .jsonl file. Raises
    RecipeError."""
    record: dict[str, Any] = {"messages": [_written(message) for message in messages]}
    if tools:
        record["tools"] = tools
    lines = path.suffix == ".jsonl"
    text = json.dumps(record, ensure_ascii=False, indent=None if lines else 1) + "\n"
    try:
        with path.open("a" if lines else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        hint = "name a new file; to a .jsonl file a line is added"
        raise RecipeError("exists already", place=str(path), hint=hint) from error
    except OSError as error:
        raise RecipeError(f"cannot be written: {error.strerror}", place=str(path)) from error


def load(path: Path) -> list[Message]:
    """Messages of a file that `save` or a user wrote; of a .jsonl file, those of its last line.
    Raises RecipeError."""
    try:
        text = path.read_text(encoding="utf-8").strip()
        record = json.loads(text.split("\n")[-1] if path.suffix == ".jsonl" else text)
        messages = record["messages"] if isinstance(record, dict) else record
        return [_message(each) for each in messages]
    except OSError as error:
        raise RecipeError(f"cannot be read: {error.strerror}", place=str(path)) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        problem = "holds no conversation, expected an object with messages in OpenAI's format"
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
        raise RecipeError(problem, place=str(path), hint=said) from error


def _written(message: Message) -> dict[str, Any]:
    found: dict[str, Any] = {"role": message.role, "content": message.content}
    if not isinstance(message.content, str):
        found["content"] = [_written_part(part) for part in message.content]
    if message.reasoning is not None:
        found["reasoning_content"] = message.reasoning
    if message.tool_calls:
        found["tool_calls"] = [
            {
                "type": "function",
                **({} if call.id is None else {"id": call.id}),
                "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        found["tool_call_id"] = message.tool_call_id
    return found if message.name is None else found | {"name": message.name}


def _written_part(part: Part) -> dict[str, str]:
    if isinstance(part, MediaPart):
        return {"type": part.kind, part.kind: part.path}
    return {"type": "text", "text": part.text}


def _message(value: dict[str, Any]) -> Message:
    if value["role"] not in get_args(Role):
        raise ValueError(f"there is no role {value['role']!r}")
    content = value.get("content") or ""
    return Message(
        value["role"],
        content if isinstance(content, str) else [_part(part) for part in content],
        _text(value.get("reasoning_content")),
        [_call(call) for call in value.get("tool_calls") or ()],
        _text(value.get("tool_call_id")),
        _text(value.get("name")),
    )


def _part(value: dict[str, Any]) -> Part:
    kind = value["type"]
    if kind in _MEDIA:
        return MediaPart(kind, str(value[kind]))
    if kind != "text" or not isinstance(value["text"], str):
        raise ValueError(f"no part of a message: {kind!r}")
    return TextPart(value["text"])


def _call(value: dict[str, Any]) -> ToolCall:
    function = value["function"]
    arguments = function.get("arguments") or {}
    arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    if not isinstance(arguments, dict) or not isinstance(function["name"], str):
        raise ValueError("a call has a name, and arguments that are an object")
    return ToolCall(function["name"], arguments, _text(value.get("id")))


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"found {value!r:.60}, expected a text")
    return value
