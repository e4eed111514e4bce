"""Conversations for chat templates: checks of the role order, and dicts in the usual format."""

from typing import Any

from tunewright import RowError
from tunewright.types import Conversation, MediaPart, Message, ObjectPart, TextPart
from tunewright_hf.templates.markers import MixedText, TemplateMessage

__all__ = ["check_roles", "place_of", "template_data"]

_NEXT = {
    "start": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user",),
    "calls": ("tool",),
    "tool": ("assistant", "tool"),
}


def check_roles(conversation: Conversation, add_generation_prompt: bool = False) -> None:
    """Check that users and assistants alternate, after at most one system message, and that tools
    answer calls.

    With `add_generation_prompt` it must be the assistant's turn. Raises RowError with the message's
    number, from 1.
    """
    state = "start"
    for number, message in enumerate(conversation.messages, 1):
        if message.role not in _NEXT[state]:
            raise _wrong_role(conversation, number, message.role, state)
        state = "calls" if message.tool_calls else message.role
    if not conversation.messages:
        raise RowError("the conversation has no messages", place=place_of(conversation))
    if add_generation_prompt and "assistant" not in _NEXT[state]:
        raise _wrong_role(conversation, len(conversation.messages) + 1, "assistant", state)


def _wrong_role(conversation: Conversation, number: int, found: str, state: str) -> RowError:
    expected = " or ".join(_NEXT[state])
    after = {"start": "to begin with", "calls": "after the assistant's tool call"}.get(
        state, f"after {state}"
    )
    return RowError(
        f"message {number} is from {found}, expected {expected} {after}",
        place=place_of(conversation),
        hint="set template.role_order to 'any' if that is meant",
    )


def place_of(conversation: Conversation) -> str:
    return str(conversation.origin) if conversation.origin else ""


def template_data(conversation: Conversation, media: bool) -> dict[str, Any]:
    """Template variables from the data: messages, tools (None if there are none), and the row's own
    variables.

    Raises RowError if a message has media and the template does not support them.
    """
    messages = [
        _fields(message, place, conversation, media)
        for place, message in enumerate(conversation.messages)
    ]
    return conversation.variables | {"messages": messages, "tools": conversation.tools or None}


def _fields(
    message: Message, place: int, conversation: Conversation, media: bool
) -> TemplateMessage:
    if message.weight and message.role != "assistant":
        problem = (
            f"message {place + 1} is from {message.role} and has a loss weight, but only "
            "answers are trained"
        )
        raise RowError(problem, place=place_of(conversation))
    content = message.content
    fields: dict[str, Any] = {"role": message.role, "content": content}
    if not isinstance(content, str):
        fields["content"] = _parts(message, place, conversation, media)
    if message.reasoning is not None:
        fields["reasoning_content"] = message.reasoning
    if message.tool_calls:
        fields["tool_calls"] = [
            {
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
                **({"id": call.id} if call.id is not None else {}),
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        fields["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        fields["name"] = message.name
    return TemplateMessage(fields, place)


def _parts(
    message: Message, place: int, conversation: Conversation, media: bool
) -> str | list[dict[str, str]]:
    """Content as a list of dicts if there is media, else as text."""
    if any(isinstance(part, ObjectPart) for part in message.content):
        problem = f"message {place + 1} has an object that is not written as text"
        raise RowError(problem, place=place_of(conversation))
    parts = [part for part in message.content if isinstance(part, TextPart | MediaPart)]
    found = next((part for part in parts if isinstance(part, MediaPart)), None)
    if found is None:
        return _text([part for part in parts if isinstance(part, TextPart)])
    if not media:
        problem = f"message {place + 1} has {found.kind}, and this template has no place for it"
        hint = (
            f"if the model takes it, set template.{found.kind}_text to the text that stands for it"
        )
        raise RowError(problem, place=place_of(conversation), hint=hint)
    return [
        {"type": "text", "text": _text([part])}
        if isinstance(part, TextPart)
        else {"type": part.kind}  # no path: a template could print it
        for part in parts
    ]


def _text(parts: list[TextPart]) -> str:
    if any(part.control for part in parts):
        return MixedText(parts)
    return "".join(part.text for part in parts)
