"""Messages of OpenAI's wire as a conversation."""

import json
from collections.abc import Collection, Sequence
from typing import Any

from tunewright.inference import Feature
from tunewright.types import Conversation, Message, Part, Role, ToolCall
from tunewright_serve.errors import ApiError
from tunewright_serve.media import content_of
from tunewright_serve.wire import Tool, WireCall, WireMessage

__all__ = ["tool_schemas", "wire_conversation"]


#: the wire's roles, but that of results, which belong to calls
_ROLES: dict[str, Role] = {
    "assistant": "assistant",
    "developer": "system",
    "system": "system",
    "user": "user",
}


def wire_conversation(
    messages: Sequence[WireMessage],
    tools: list[dict[str, Any]],
    variables: dict[str, Any],
    features: Collection[Feature],
    hosts: Collection[str] = (),
) -> Conversation:
    """Convert a chat for an engine with these features. hosts: see content_of. Results of parallel
    calls are put into the order of the calls.

    Raises ApiError that names the message.
    """
    found: list[Message] = []
    pending: list[ToolCall] = []  # calls of the last answer without a result
    results: list[tuple[int, Message]] = []  # their results: number of the call, message
    for number, message in enumerate(messages):
        role, given = message["role"], message.get("content")
        if isinstance(given, str) and len(message) == 2 and role in _ROLES and not results:
            found.append(Message(_ROLES[role], given))  # as most messages are
            pending = []
            continue
        place = f"messages[{number}]"
        content = content_of(given, place, features, hosts)
        if role == "tool":
            results.append(_result(message, content, pending, [n for n, _ in results], place))
            continue
        if results:
            found += _in_order(results)
            results = []
        made = _message(message, content, place)
        pending = made.tool_calls
        found.append(made)
    return Conversation(found + _in_order(results), tools, variables)


def tool_schemas(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """The tools as templates get them. Raises ApiError if two have one name."""
    names = [tool.function.name for tool in tools]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ApiError(f"tools: two are named {twice!r}", param="tools")
    return [tool.model_dump(exclude_none=True) for tool in tools]


def _in_order(results: list[tuple[int, Message]]) -> list[Message]:
    return [message for _, message in sorted(results, key=lambda result: result[0])]


def _result(
    message: WireMessage,
    content: str | list[Part],
    calls: list[ToolCall],
    answered: list[int],
    place: str,
) -> tuple[int, Message]:
    """A tool's result, with the number of the call that it answers."""
    wanted = message.get("tool_call_id")
    number = next(
        (n for n, call in enumerate(calls) if call.id == wanted and n not in answered),
        None,
    )
    if number is None:
        problem = f"{place}: no tool call before it has the id {wanted!r}"
        raise ApiError(problem, param="messages")
    call = calls[number]
    return number, Message("tool", content, tool_call_id=call.id, name=call.name)


def _message(message: WireMessage, content: str | list[Part], place: str) -> Message:
    role, is_empty = message["role"], message.get("content") is None
    if role != "assistant":
        if message.get("tool_calls") or message.get("tool_call_id"):
            problem = f"{place}: tool_calls and tool_call_id are not for the role {role}"
            raise ApiError(problem, param="messages")
        if is_empty:
            raise ApiError(f"{place}: content is missing", param="messages")
        return Message(_ROLES[role], content)
    calls = [_call(call, place) for call in message.get("tool_calls") or []]
    refusal = message.get("refusal")
    if is_empty and not calls and refusal is None:
        raise ApiError(f"{place}: has neither content nor tool_calls", param="messages")
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    if is_empty:
        content = refusal or ""
    return Message("assistant", content, reasoning or None, calls)


def _call(call: WireCall, place: str) -> ToolCall:
    try:
        arguments = json.loads(call.function.arguments or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        problem = f"{place}: the arguments of call {call.id!r} are not a JSON object"
        raise ApiError(problem, param="messages")
    return ToolCall(call.function.name, arguments, call.id)
