"""Detect what a checkpoint's template leaves out of a conversation.

Each text, call, tool and thinking is replaced by a unique word, and the conversation is rendered
again: a word that is missing was left out, whatever the template does with JSON, order and white
space. The result is cached by the shape of the conversation, so few are rendered.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tunewright.types import Conversation, Message, TextPart, ToolCall

_THINKING_END = "</think>"
_KEPT = 10_000  # shapes in the cache

Shape = tuple[Any, ...]


@dataclass(slots=True)
class _Words:
    """Unique words, and what they stand for."""

    required: dict[str, str]  # word → what is missing if the word is not rendered
    count: int = 0

    def take(self, what: str = "") -> str:
        """Return a new word. Without `what` it may be left out."""
        self.count += 1
        word = f"zq{self.count:05d}x"
        if what:
            self.required[word] = what
        return word


class DropCheck:
    """Caches by shape what one template leaves out."""

    def __init__(self) -> None:
        self._known: dict[Shape, str] = {}

    def __call__(
        self, conversation: Conversation, answered: bool, render: Callable[[Conversation], str]
    ) -> str:
        """Describe what the template leaves out, such as `the tools`; empty if nothing.

        answered: the last message is a trained answer. Its thinking must be rendered, while that of
        earlier answers may be dropped: many models never see it again.
        """
        shape = (answered, *_shape(conversation))
        if shape not in self._known:
            words = _Words({})
            text = render(_planted(conversation, answered, words))
            if len(self._known) >= _KEPT:
                self._known.clear()
            missing = (what for word, what in words.required.items() if word not in text)
            self._known[shape] = next(missing, "")
        return self._known[shape]


def _shape(conversation: Conversation) -> Iterator[Any]:
    yield len(conversation.tools)
    yield json.dumps(conversation.variables, sort_keys=True, default=str)
    for message in conversation.messages:
        content = message.content
        yield message.role
        yield (
            _kind(content)
            if isinstance(content, str)
            else tuple(
                _kind(part.text) if isinstance(part, TextPart) else part.kind for part in content
            )
        )
        yield message.reasoning is not None and bool(message.reasoning.strip())
        yield tuple(bool(call.arguments) for call in message.tool_calls)


def _kind(text: str) -> str:
    if not text.strip():
        return ""
    return "thinking" if _THINKING_END in text else "text"


def _planted(conversation: Conversation, answered: bool, words: _Words) -> Conversation:
    last = len(conversation.messages) - 1
    messages = [
        _message(message, f"message {number + 1}", answered and number == last, words)
        for number, message in enumerate(conversation.messages)
    ]
    tools = [
        tool | {"function": tool["function"] | {"name": words.take("the tools")}}
        for tool in conversation.tools
    ]
    return replace(conversation, messages=messages, tools=tools)


def _message(message: Message, at: str, trained: bool, words: _Words) -> Message:
    thinking = f"the thinking of {at}" if trained else ""

    def text(written: str) -> str:
        kind = _kind(written)
        if kind == "thinking" and message.role == "assistant":
            before, _, after = written.rpartition(_THINKING_END)
            opened = "<think>\n" if "<think>" in before else ""
            said = f"\n\n{words.take(f'the text of {at}')}" if after.strip() else ""
            return f"{opened}{words.take(thinking)}\n{_THINKING_END}{said}"
        return words.take(f"the text of {at}") if kind else written

    content = message.content
    planted: Any = (
        text(content)
        if isinstance(content, str)
        else [TextPart(text(part.text)) if isinstance(part, TextPart) else part for part in content]
    )
    reasoning = message.reasoning
    if reasoning is not None and reasoning.strip():
        reasoning = words.take(thinking)
    calls = [_call(call, f"a tool call of {at}", words) for call in message.tool_calls]
    return replace(message, content=planted, reasoning=reasoning, tool_calls=calls)


def _call(call: ToolCall, what: str, words: _Words) -> ToolCall:
    arguments = {words.take(what): words.take(what)} if call.arguments else {}
    return replace(call, name=words.take(what), arguments=arguments)
