"""Marks in rendered text: trained spans, and control tokens that data spells.

Control tokens spelled in data are marked before rendering, so that they can be told from the
template's own. Almost all rows have none, and cost one search per string.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tunewright import RowError
from tunewright.types import Span
from tunewright_hf.templates.markers import (
    ANSWER,
    ESCAPE,
    NUMBERED,
    SPELLED_END,
    TRAINED,
    TRAINED_END,
    UNTRUSTED,
    MixedText,
    TemplateMessage,
)

__all__ = ["ControlTokenEscaper", "Cut"]

_MARKS = TRAINED + NUMBERED + TRAINED_END + UNTRUSTED + ANSWER + SPELLED_END + ESCAPE
_MARK_CLASS = f"[{_MARKS[0]}-{_MARKS[-1]}]"
# a character class is found much faster than the three alternatives
_FIND = re.compile(_MARK_CLASS)
_FORM = re.compile(f"{TRAINED}(?P<place>[0-9]*){NUMBERED}|{ESCAPE}(?P<escaped>[0-6])|{_MARK_CLASS}")

Render = Callable[[dict[str, Any]], str]


@dataclass(slots=True)
class Cut:
    """Rendered text without marks, and the spans they marked."""

    text: str
    # start, end, number of the message
    trained: list[tuple[int, int, int | None]] = field(default_factory=list)
    untrusted: list[Span] = field(default_factory=list)
    answers: list[Span] = field(default_factory=list)


def cut(marked: str) -> Cut:
    """Remove the marks. A single mark, left where a template split a string, is ignored."""
    return _cut_simple(marked) or _cut_any(marked)


def _cut_simple(marked: str) -> Cut | None:
    """Fast path of `cut` for text whose only marks are consecutive trained spans, as in almost all
    rows; else None."""
    before, *spans = marked.split(TRAINED)
    pieces, trained, length = [before], list[tuple[int, int, int | None]](), len(before)
    for span in spans:
        place, numbered, rest = span.partition(NUMBERED)
        inside, ended, after = rest.partition(TRAINED_END)
        if not (numbered and ended and inside and not place.strip("0123456789")):
            return None
        trained.append((length, length + len(inside), int(place) if place else None))
        pieces += inside, after
        length += len(inside) + len(after)
    text = "".join(pieces)
    return None if _has_marks(text) else Cut(text, trained)


def _cut_any(marked: str) -> Cut:
    result = Cut("")
    pieces: list[str] = []
    length = position = 0
    trained: tuple[int, int | None] | None = None
    spelled: tuple[int, list[Span]] | None = None
    for found in _FIND.finditer(marked):
        match = _FORM.match(marked, found.start())
        if match is None or match.start() < position:
            continue  # within the previous one
        pieces.append(marked[position : match.start()])
        length += match.start() - position
        position, mark = match.end(), found[0]
        if mark == TRAINED:
            trained = length, int(place) if (place := match["place"]) else None
        elif mark == TRAINED_END:
            if trained and trained[0] < length:
                result.trained.append((trained[0], length, trained[1]))
            trained = None
        elif mark == UNTRUSTED:
            spelled = length, result.untrusted
        elif mark == ANSWER:
            spelled = length, result.answers
        elif mark == SPELLED_END:
            if spelled and spelled[0] < length:
                spelled[1].append(Span(spelled[0], length))
            spelled = None
        elif escaped := match["escaped"]:
            pieces.append(_MARKS[int(escaped)])
            length += 1
    pieces.append(marked[position:])
    result.text = "".join(pieces)
    return result


def _has_marks(text: str) -> bool:
    return not text.isascii() and any(mark in text for mark in _MARKS)


def _escape(match: re.Match[str]) -> str:
    return f"{ESCAPE}{_MARKS.index(match[0])}"


class _Words:
    """Strings to find in data, and the mark characters themselves."""

    def __init__(self, words: Iterable[str]) -> None:
        groups: dict[str, list[str]] = {}
        # longer ones first
        for word in sorted({word for word in words if word}, key=len, reverse=True):
            groups.setdefault(word[0], []).append(re.escape(word[1:]))
        # A pattern with a literal first letter is found many times faster than one without.
        by_first = [f"{re.escape(first)}(?:{'|'.join(rests)})" for first, rests in groups.items()]
        self._firsts = [
            (first, re.compile(pattern)) for first, pattern in zip(groups, by_first, strict=True)
        ]
        self._any = re.compile("|".join([*by_first, _MARK_CLASS]))

    def found_in(self, text: str) -> bool:
        if any(first in text and pattern.search(text) for first, pattern in self._firsts):
            return True
        return _has_marks(text)

    def mark(self, text: str, kind: str) -> str:
        def replace(match: re.Match[str]) -> str:
            return _escape(match) if match[0] in _MARKS else f"{kind}{match[0]}{SPELLED_END}"

        return self._any.sub(replace, text)


class ControlTokenEscaper:
    """Finds control tokens spelled in data.

    control: stop and role tokens, and the tokenizer's special tokens: never tokens in any data;
    words: thinking and tool markers, which are tokens in assistant messages only
    """

    def __init__(self, control: Iterable[str], words: Iterable[str]) -> None:
        control, words = set(control), set(words)
        self._nothing = _Words(())
        self._control = _Words(control - words)
        self._all = _Words(control | words)

    def render(self, data: dict[str, Any], render: Render, place: str = "") -> Cut:
        """Render the template variables `data`, and locate the control tokens they spell.

        Raises RowError if the template renders something else because of the marks, even with
        `words` unmarked.
        """
        if not self._spelled(data):
            return cut(render(data))
        plain = self.plain(data, render)
        # A template may search users' text for its own words (Qwen3 does, for <tool_response>):
        # then these are not marked.
        for untrusted in (self._all, self._control):
            marked = cut(render(self._marked(data, untrusted, self._control)))
            if marked.text == plain:
                return marked
        raise RowError(
            (
                "a message spells a control token, and the template reacts to it, so "
                "that it cannot be made plain text"
            ),
            place=place,
            hint="take the control token out of the data",
        )

    def plain(self, data: dict[str, Any], render: Render) -> str:
        """The text alone, whatever characters the data has."""
        return cut(render(self._marked(data, self._nothing, self._nothing))).text

    def _spelled(self, data: dict[str, Any]) -> bool:
        for message in data["messages"]:
            words = self._control if message["role"] == "assistant" else self._all
            if any(
                key != "role" and _any_string(value, words.found_in)
                for key, value in message.items()
            ):
                return True
        return any(
            key != "messages" and _any_string(value, self._all.found_in)
            for key, value in data.items()
        )

    def _marked(self, data: dict[str, Any], untrusted: _Words, answer: _Words) -> dict[str, Any]:
        def by_user(text: str) -> str:
            return untrusted.mark(text, UNTRUSTED)

        def by_assistant(text: str) -> str:
            return answer.mark(text, ANSWER)

        def message(fields: TemplateMessage) -> TemplateMessage:
            change = by_assistant if fields["role"] == "assistant" else by_user
            changed = {k: v if k == "role" else map_strings(v, change) for k, v in fields.items()}
            return TemplateMessage(changed, fields._place)

        others = {
            key: map_strings(value, by_user) for key, value in data.items() if key != "messages"
        }
        return others | {"messages": [message(fields) for fields in data["messages"]]}


def _any_string(value: Any, test: Callable[[str], bool]) -> bool:
    if isinstance(value, str):
        return test(value)
    if isinstance(value, dict):
        return any(_any_string(key, test) or _any_string(item, test) for key, item in value.items())
    if isinstance(value, list):
        return any(_any_string(item, test) for item in value)
    return False


def map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON-like value with every string changed, including keys."""
    if isinstance(value, MixedText):
        return value.changed(change)
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {map_strings(key, change): map_strings(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [map_strings(item, change) for item in value]
    return value
