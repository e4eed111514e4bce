"""Requests to templates, and rendered text."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tunewright.rows import Conversation

__all__ = ["Rendered", "Span", "TemplateRequest"]


@dataclass(slots=True)
class Span:
    """Characters [start, end) of a rendered text."""

    start: int
    end: int
    weight: float = 1.0  # loss weight of these characters


@dataclass(slots=True)
class TemplateRequest:
    conversation: Conversation
    add_generation_prompt: bool = False
    special_tokens: dict[str, str] = field(default_factory=dict)  # bos_token, eos_token, … by name
    tokenizer: Any = None  # for `auto` only: every other template is rendered without one


@dataclass(slots=True)
class Rendered:
    text: str
    trained: list[Span] = field(default_factory=list)  # what the model is trained to produce
    #: text of users, systems and tools that spells control tokens
    untrusted: list[Span] = field(default_factory=list)
    answers: list[Span] = field(default_factory=list)  # assistants' text that spells such tokens
    #: of each medium, in the order of the text: the id of its placeholder, which is one token of
    #: the text, and the ids that take its place. A template leaves it empty
    media: list[tuple[int, Sequence[int]]] = field(default_factory=list)
