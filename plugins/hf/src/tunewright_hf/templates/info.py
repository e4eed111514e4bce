"""What a template declares of itself: tokens, words, and the form of replies."""

import re
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

from tunewright import RecipeError

__all__ = ["ReplyForm", "TemplateInfo"]


@dataclass(frozen=True, slots=True)
class ReplyForm:
    """`[reply]` of a template's head: how it writes what is not text. All but `python` are regular
    expressions, in which `.` is any character."""

    # before the JSON of a call: {name, arguments}, or a list of them; with a group `name`, the
    # arguments
    call: str = ""
    end: str = ""  # after it
    # groups `key` and `value`: each argument between `call` and `end`, where they are no JSON
    argument: str = ""
    python: bool = False  # between `call` and `end` stand Python's calls: [f(a="x", b=1), g()]
    # what is neither text nor thinking nor a call: wrappers, the headers of channels
    drop: str = ""
    # with a group `text`; not given: what stands between the template's words for thinking
    thinking: str = ""

    @classmethod
    def read(cls, declared: dict[str, Any], place: str) -> "ReplyForm":
        """Raises RecipeError where a field is unknown or no regular expression."""
        known = [field.name for field in fields(cls)]
        if unknown := declared.keys() - set(known):
            problem = f"unknown in [reply] of the head comment: {', '.join(sorted(unknown))}"
            raise RecipeError(problem, place=place, hint=f"there is: {', '.join(known)}")
        for name, pattern in declared.items():
            try:
                compiled(pattern) if name != "python" else None
            except re.error as error:
                raise RecipeError(
                    f"[reply] {name} is no regular expression: {error}", place=place
                ) from error
        return cls(**declared)


@dataclass(frozen=True, slots=True)
class TemplateInfo:
    """What a template says of itself, in the TOML of its first comment."""

    stop: tuple[str, ...] = ()  # tokens that end an answer; none: the tokenizer's own EOS
    # tokens that the template writes; not declared: each <|…|> of its source
    control: tuple[str, ...] = ()
    thinking: tuple[str, str] | None = None  # the words round the thinking
    tool_call: tuple[str, ...] = ()  # the words round calls of tools and their answers
    default_system: str | None = None  # the system prompt where a conversation has none
    protected: bool = True  # False: roles are told apart by plain text, which users can write too
    media: bool = False  # True: takes content in parts, with images, video and audio
    include: tuple[str, ...] = ()  # files with its macros, by name: beside it, or shared ones
    notes: str = ""  # where it is known to differ from others, and why
    reply: ReplyForm = field(default_factory=ReplyForm)  # how a generated reply is parsed

    @property
    def words(self) -> tuple[str, ...]:
        """Words that an assistant may write as tokens."""
        return (self.thinking or ()) + self.tool_call


@lru_cache(maxsize=64)
def compiled(pattern: str) -> re.Pattern[str]:
    """Compile a regular expression of a ReplyForm, in which `.` is any character."""
    return re.compile(pattern, re.DOTALL)
