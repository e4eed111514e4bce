"""Declarations of a template: tokens, markers, and the format of replies."""

import re
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, Literal

from tunewright import RecipeError

__all__ = ["PLACE", "TAG", "BoxForm", "ReplyForm", "TemplateInfo"]


@dataclass(frozen=True, slots=True)
class ReplyForm:
    """`[reply]` of a template's head: how it writes thinking and tool calls. All but `python` are
    regular expressions, in which `.` matches any character, and a lookahead stands at the end."""

    # before the JSON of a call: {name, arguments}, or a list of them; with a group `name`, of the
    # arguments
    call: str = ""
    end: str = ""  # after the call
    # groups `key` and `value`: each argument between `call` and `end`, if they are not JSON
    argument: str = ""
    python: bool = False  # the text between `call` and `end` is Python calls: [f(a="x", b=1), g()]
    # neither text nor thinking nor a call: wrappers, channel headers
    drop: str = ""
    # before and after the thinking, which may come several times; default: the template's
    # thinking markers, once, at the beginning
    thinking: str = ""
    thinking_end: str = ""

    @classmethod
    def read(cls, declared: dict[str, Any], place: str) -> "ReplyForm":
        """Parse the declaration. Raises RecipeError if a field is unknown or not a regular
        expression."""
        known = [field.name for field in fields(cls)]
        if unknown := declared.keys() - set(known):
            problem = f"unknown in [reply] of the head comment: {', '.join(sorted(unknown))}"
            raise RecipeError(problem, place=place, hint=f"there is: {', '.join(known)}")
        if bool(declared.get("thinking")) != bool(declared.get("thinking_end")):
            problem = "[reply] has only one of thinking and thinking_end"
            raise RecipeError(problem, place=place)
        for name, pattern in declared.items():
            try:
                compiled(pattern) if name != "python" else None
            except re.error as error:
                raise RecipeError(
                    f"[reply] {name} is no regular expression: {error}", place=place
                ) from error
        return cls(**declared)


@dataclass(frozen=True, slots=True)
class BoxForm:
    """Form of objects in images, a template's option `boxes`. Control tokens in it are tokens, also
    in what users say."""

    box: str  # with {x1}, {y1}, {x2} and {y2}; {x1:04} has at least four digits
    point: str = ""  # with {x} and {y}; "": points are not written
    ref: str = "{ref}"  # the name of an object
    # around boxes and points that follow each other, and between them
    open: str = ""
    close: str = ""
    separator: str = ","
    # coordinates: integers from 0 to this number, across the image. seen: pixels of the image as
    # the model's processor resizes it. unit: from 0 to 1, with three decimals
    scale: int | Literal["seen", "unit"] = 1000

    @classmethod
    def read(cls, declared: dict[str, Any], place: str) -> "BoxForm":
        """Parse the option. Raises RecipeError if it is not complete."""
        known = [field.name for field in fields(cls)]
        if unknown := declared.keys() - set(known):
            problem = f"unknown: {', '.join(sorted(unknown))}"
            raise RecipeError(problem, place=place, hint=f"there is: {', '.join(known)}")
        form = cls(**{"box": ""} | declared)
        for name, needed in _PLACES.items():
            text = getattr(form, name)
            found = sorted(match["name"] for match in PLACE.finditer(str(text)))
            if (text or name == "box") and found != sorted(needed):
                expected = ", ".join(f"{{{each}}}" for each in needed)
                raise RecipeError(f"expected {expected}", place=f"{place}.{name}")
        if bool(form.open) != bool(form.close):
            raise RecipeError("has only one of open and close", place=place)
        if not form.open and "separator" in declared:
            raise RecipeError("needs open and close", place=f"{place}.separator")
        whole = isinstance(form.scale, int) and form.scale > 0
        if not whole and form.scale not in ("seen", "unit"):
            raise RecipeError("expected a number, seen or unit", place=f"{place}.scale")
        return form

    @property
    def tokens(self) -> tuple[str, ...]:
        """Pieces in angle brackets: tokens, if the tokenizer has them."""
        written = self.open + self.box + self.point + self.close + self.ref
        return tuple(dict.fromkeys(TAG.findall(written)))


PLACE = re.compile(r"\{(?P<name>x1|y1|x2|y2|x|y|ref)(?::0(?P<digits>\d))?\}")
_PLACES = {"box": ("x1", "y1", "x2", "y2"), "point": ("x", "y"), "ref": ("ref",)}
TAG = re.compile(r"<[^\s<>{}]+>")


@dataclass(frozen=True, slots=True)
class TemplateInfo:
    """Declarations of a template, in the TOML of its first comment."""

    stop: tuple[str, ...] = ()  # tokens that end an answer; default: the tokenizer's EOS
    # tokens that the template writes; default: each <|…|> in its source
    control: tuple[str, ...] = ()
    thinking: tuple[str, str] | None = None  # markers around the thinking
    tool_call: tuple[str, ...] = ()  # markers around tool calls and results
    default_system: str | None = None  # system prompt of conversations without one
    protected: bool = True  # False: roles are marked by plain text, which users can write too
    media: bool = False  # True: supports content in parts, with images, video and audio
    include: tuple[str, ...] = ()  # files with its macros, by name: beside it, or shared ones
    notes: str = ""  # known differences from other implementations, and why
    reply: ReplyForm = field(default_factory=ReplyForm)  # how to parse a generated reply
    boxes: BoxForm | None = None  # how to write objects in images; None: they are not written

    @property
    def words(self) -> tuple[str, ...]:
        """Markers that an assistant may write as tokens."""
        of_boxes = self.boxes.tokens if self.boxes else ()
        return (self.thinking or ()) + self.tool_call + of_boxes


@lru_cache(maxsize=64)
def compiled(pattern: str) -> re.Pattern[str]:
    """Compile a regular expression of a ReplyForm, in which `.` matches any character."""
    return re.compile(pattern, re.DOTALL)


def open_end(pattern: str, text: str, start: int) -> int:
    """Return the first place from which the text, up to its end, begins a match or is one.

    The end of the text if there is none: text that follows changes no match before this place.
    """
    found = _unfinished(pattern).search(text, start, partial=True)
    return found.start() if found else len(text)


@lru_cache(maxsize=64)
def _unfinished(pattern: str) -> Any:
    # the only library with partial matches; checking a recipe needs none
    import regex  # type: ignore[import-untyped]

    # the character behind the pattern occurs in no text, so that only partial matches are found;
    # within a lookahead the library finds not all of them
    return regex.compile(f"(?:{pattern.replace('(?=', '(?:')})\\U0010ffff", regex.DOTALL)
