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
_PLAIN = {"role", "content"}


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
        if not results and _is_plain(message):
            found.append(Message(_ROLES[message.role], message.content))
            pending = []
            continue
        place = f"messages[{number}]"
        if message.role == "tool":
            content = content_of(message.content, place, features, hosts)
            results.append(_result(message, content, pending, [n for n, _ in results], place))
            continue
        if results:
            found += _in_order(results)
            results = []
        made = _message(message, content_of(message.content, place, features, hosts), place)
        pending = made.tool_calls
        found.append(made)
    return Conversation(found + _in_order(results), tools, variables)


def _is_plain(message: WireMessage) -> bool:
    """Whether a message is its text and no more, as most are."""
    if message.model_fields_set != _PLAIN or message.role == "tool":
        return False
    return isinstance(message.content, str)


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
    number = next(
        (
            number
            for number, call in enumerate(calls)
            if call.id == message.tool_call_id and number not in answered
        ),
        None,
    )
    if number is None:
        problem = f"{place}: no tool call before it has the id {message.tool_call_id!r}"
        raise ApiError(problem, param="messages")
    call = calls[number]
    return number, Message("tool", content, tool_call_id=call.id, name=call.name)


def _message(message: WireMessage, content: str | list[Part], place: str) -> Message:
    if message.role != "assistant":
        if message.tool_calls or message.tool_call_id:
            problem = f"{place}: tool_calls and tool_call_id are not for the role {message.role}"
            raise ApiError(problem, param="messages")
        if message.content is None:
            raise ApiError(f"{place}: content is missing", param="messages")
        return Message(_ROLES[message.role], content)
    calls = [_call(call, place) for call in message.tool_calls or []]
    if message.content is None and not calls and message.refusal is None:
        raise ApiError(f"{place}: has neither content nor tool_calls", param="messages")
    reasoning = message.reasoning_content or message.reasoning
    if message.content is None:
        content = message.refusal or ""
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
