"""Conversations with media, as the processors of transformers take them."""

from typing import Any

from tunewright.types import Message, TextPart


def talk(messages: list[Message], contents: list[Any]) -> list[dict[str, Any]]:
    """Messages as processors take them. contents: the media, in their order."""
    left = iter(contents)
    return [
        {
            "role": message.role,
            "content": [{"type": "text", "text": message.content}]
            if isinstance(message.content, str)
            else [
                {"type": "text", "text": part.text}
                if isinstance(part, TextPart)
                else {"type": part.kind, part.kind: next(left)}
                for part in message.content
            ],
            **_calls(message),
        }
        for message in messages
    ]


def _calls(message: Message) -> dict[str, Any]:
    calls = [{"name": call.name, "arguments": call.arguments} for call in message.tool_calls]
    made = [{"type": "function", "function": each} for each in calls]
    return {"tool_calls": made} if made else {}
