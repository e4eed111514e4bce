"""Render conversations from JSON lines, and parse generated replies."""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tunewright import RecipeError, RowError
from tunewright.types import (
    Conversation,
    MediaPart,
    Message,
    Origin,
    Part,
    TemplateRequest,
    TextPart,
    ToolCall,
)
from tunewright_template.load import load

_MEDIA = ("image", "video", "audio")


def render_lines(
    name: str,
    source: Path,
    special: dict[str, str],
    add_generation_prompt: bool,
    variables: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    """Yield one object per line of `source` (`-`: standard input): text and trained, or error.

    trained: [start, end) of trained spans, in characters of text. Raises RecipeError if the file or
    template does not exist.
    """
    handle = load(name)
    # not splitlines: JSON strings may contain other line separators
    for number, line in enumerate(read_text(source).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = _conversation(json.loads(line), Origin(str(source), number))
            row.variables = variables | row.variables
            request = TemplateRequest(
                row, add_generation_prompt=add_generation_prompt, special_tokens=special
            )
            rendered = handle.call("format_template", run=None, request=request)
            rendered.text.encode("utf-8")
        except RowError as error:
            yield {"error": error.problem}
        except (
            UnicodeEncodeError
        ):  # a lone surrogate: valid in JSON, but not in any output encoding
            yield {"error": "half of a surrogate pair is no character"}
        except RecursionError:
            yield {"error": "nested too deeply"}
        except ValueError as error:  # not JSON, or not a conversation
            yield {"error": str(error)}
        else:
            yield {
                "text": rendered.text,
                "trained": [[span.start, span.end] for span in rendered.trained],
            }


def parse_reply(name: str, text: str, tools: list[dict[str, Any]] | None) -> dict[str, Any]:
    """Parse a generated text to a message in OpenAI's format. Raises RecipeError if the template is
    not installed."""
    plugin: Any = load(name).plugin
    message: Message = plugin.parse_reply(text, tools)
    found: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning is not None:
        found["reasoning_content"] = message.reasoning
    if message.tool_calls:
        found["tool_calls"] = [_written(call) for call in message.tool_calls]
    if form := plugin.info.boxes:
        from tunewright_hf.media.boxes import as_data, read_objects

        if objects := read_objects(str(message.content), form):
            found["objects"] = as_data(objects, form)
    return found


def _written(call: ToolCall) -> dict[str, Any]:
    written: dict[str, Any] = {
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }
    return written if call.id is None else {"id": call.id} | written


def read_text(source: Path) -> str:
    """Content of a file; `-` is standard input. Raises RecipeError."""
    if str(source) == "-":
        return sys.stdin.read()
    try:
        return source.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"cannot be read: {error.strerror}", place=str(source)) from error
    except UnicodeDecodeError as error:
        raise RecipeError("is not UTF-8 text", place=str(source)) from error


def read_tools(source: Path) -> list[dict[str, Any]]:
    """A JSON list of tools. Raises RecipeError."""
    hint = "a JSON list of tools in OpenAI's schema is expected"
    try:
        found = json.loads(read_text(source))
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"cannot be read: {error}", place=str(source), hint=hint) from error
    if not isinstance(found, list) or not all(isinstance(tool, dict) for tool in found):
        raise RecipeError("holds no list of objects", place=str(source), hint=hint)
    return found


# ---- JSON to messages: no more is checked than rendering needs -----------------------------------


def _conversation(record: Any, origin: Origin) -> Conversation:
    """Convert a record. Raises ValueError with the problem."""
    messages = record.get("messages") if isinstance(record, dict) else None
    if not isinstance(messages, list):
        raise ValueError('expected an object with a list "messages"')
    found = [_message(message, f"messages[{number}]") for number, message in enumerate(messages)]
    variables = record.get("chat_template_kwargs") or {}
    if not isinstance(variables, dict):
        raise ValueError("chat_template_kwargs: expected an object")
    return Conversation(found, list(_tools(record.get("tools") or [])), dict(variables), origin)


def _tools(values: Any) -> Iterator[dict[str, Any]]:
    """Yield tools in OpenAI's format; a bare function is wrapped."""
    if isinstance(values, str):
        values = json.loads(values)
    for number, tool in enumerate(values if isinstance(values, list) else [values]):
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ValueError(f"tools[{number}]: expected an object with a function that has a name")
        yield tool if "function" in tool else {"type": "function", "function": tool}


def _message(value: Any, at: str) -> Message:
    if not isinstance(value, dict) or value.get("role") not in (
        "system",
        "user",
        "assistant",
        "tool",
    ):
        raise ValueError(f"{at}: expected an object with a role: system, user, assistant or tool")
    for key in ("reasoning_content", "tool_call_id", "name"):
        if not isinstance(value.get(key), str | None):
            raise ValueError(f"{at}.{key}: expected text")
    calls = value.get("tool_calls") or []
    if not isinstance(calls, list):
        raise ValueError(f"{at}.tool_calls: expected a list")
    return Message(
        value["role"],
        _content(value.get("content"), at),
        reasoning=value.get("reasoning_content"),
        tool_calls=list(_calls(calls, at)),
        tool_call_id=value.get("tool_call_id"),
        name=value.get("name"),
        weight=_weight(value, at),
    )


def _weight(message: dict[str, Any], at: str) -> float | None:
    weight = message.get("weight")
    if weight is None and "train" in message:
        return float(bool(message["train"]))
    if weight is not None and (
        isinstance(weight, bool) or not isinstance(weight, int | float) or not weight >= 0
    ):
        raise ValueError(f"{at}.weight: expected a number, 0 or more")
    return weight


def _content(value: Any, at: str) -> str | list[Part]:
    if value is None or isinstance(value, str):
        return value or ""
    parts: list[Part] = []
    for part in value if isinstance(value, list) else [value]:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            parts.append(TextPart(part["text"]))
        elif kind in _MEDIA:
            parts.append(MediaPart(kind, str(part.get(kind, ""))))
        else:
            raise ValueError(
                f"{at}.content: expected text, or a list of parts of type text, {', '.join(_MEDIA)}"
            )
    return parts


def _calls(values: Iterable[Any], at: str) -> Iterator[ToolCall]:
    problem = f"{at}.tool_calls: expected a name, and arguments that are an object"
    for value in values:
        function = value.get("function", value) if isinstance(value, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ValueError(problem)
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments or "{}")
            except ValueError as error:
                raise ValueError(f"{problem}; {error}") from error
        if not isinstance(arguments, dict):
            raise ValueError(problem)
        yield ToolCall(function["name"], arguments, value.get("id"))
