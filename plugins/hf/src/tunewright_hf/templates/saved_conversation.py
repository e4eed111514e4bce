"""Conversations as JSON texts, in a column of prepared rows."""

import json
from dataclasses import asdict

from tunewright.types import Conversation, Message, TextPart, ToolCall

__all__ = ["COLUMN", "from_json", "to_json"]

COLUMN = "prompt_conversation"  # of prompts, where a stage has an environment


def to_json(conversation: Conversation) -> str | None:
    """The messages and tools. None if there are media in it."""
    messages = []
    for message in conversation.messages:
        if not isinstance(message.content, str):
            parts = [part for part in message.content if isinstance(part, TextPart)]
            if len(parts) < len(message.content):
                return None
            text = "".join(part.text for part in parts)
            messages.append(asdict(message) | {"content": text})
        else:
            messages.append(asdict(message))
    return json.dumps({"messages": messages, "tools": conversation.tools}, ensure_ascii=False)


def from_json(text: str) -> Conversation:
    """The conversation that `to_json` has written."""
    found = json.loads(text)
    messages = [
        Message(**message | {"tool_calls": [ToolCall(**call) for call in message["tool_calls"]]})
        for message in found["messages"]
    ]
    return Conversation(messages, found["tools"])
