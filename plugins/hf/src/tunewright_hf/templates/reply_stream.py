"""Parse a generated reply while it arrives: thinking, text and tool calls."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from tunewright.types import ToolCall
from tunewright_hf.templates.info import TemplateInfo, compiled, open_end
from tunewright_hf.templates.reply_calls import OpenCall

__all__ = ["ReplyEvent", "ReplyStream", "whole_reply"]

# Held text of more characters is looked at only when it has grown by a sixteenth, so that the cost
# of a reply is not the square of its length.
_LONG = 256


@dataclass(frozen=True, slots=True)
class ReplyEvent:
    """Part of a reply. The texts of its events, joined by kind, are its content and reasoning."""

    kind: Literal["text", "reasoning", "call"]
    text: str = ""
    call: ToolCall | None = None


class ReplyStream:
    """Parser of one reply. It holds back what may begin a marker, and white space.

    info: declarations of the template. tools: available tools as OpenAI JSON schemas; []: none,
    nothing is parsed as a call; None: unknown. in_thinking: the prompt has opened the thinking.

    White space around thinking and calls is dropped, as part of the format. Thinking without an end
    goes on to the end of the reply; a call that cannot be parsed stays text.
    """

    def __init__(
        self,
        info: TemplateInfo,
        tools: Sequence[dict[str, Any]] | None = None,
        *,
        in_thinking: bool = False,
    ) -> None:
        form = info.reply
        self._form, self._tools, self._opened = form, tools or (), in_thinking
        self._markers = info.thinking if not form.thinking else None
        self._thinking_end = form.thinking_end or (
            re.escape(info.thinking[1]) if info.thinking else ""
        )
        self._call = form.call if tools != [] else ""
        self._patterns = [each for each in (form.thinking, self._call, form.drop) if each]
        self._stop, self._stop_begin = _stop_patterns(info.stop)
        self._text, self._at = "", 0  # all before text[at] is in an event, or dropped
        self._state = self._begin
        self._next_look = 0  # length of the text from which on it is looked at again
        self._skips_lines = False  # after thinking: empty lines before the content
        self._calls_from = 0  # no call begins before: one that could not be parsed does
        self._open_call: OpenCall | None = None
        self._reasoning, self._content = _Trimmed("reasoning", True), _Trimmed("text", False)
        self._has_reasoned = False

    def push(self, text: str) -> list[ReplyEvent]:
        """Return the events that are certain now."""
        self._text += text
        if len(self._text) < self._next_look and self._open_call is None:
            return []
        events = self._advance(final=False)
        held = len(self._text) - self._at
        self._next_look = len(self._text) + (held // 16 if held > _LONG else 0)
        return events

    def finish(self, text: str = "") -> list[ReplyEvent]:
        """Return the remaining events when no more follows than this text. A stop token at the end
        of the reply is removed."""
        self._text += text
        if self._stop:
            rest = re.sub(f"{self._stop}\\Z", "", self._text[self._at :])
            self._text = self._text[: self._at] + rest
        events = self._advance(final=True)
        if not self._content.strips:  # there was no call
            events += self._content.rest()
        return events

    def _advance(self, final: bool) -> list[ReplyEvent]:
        events: list[ReplyEvent] = []
        while self._state(events, final):
            pass
        return events

    def _safe(self, *patterns: str, final: bool) -> int:
        """First place from which text that follows may change a match of the patterns."""
        if final:
            return len(self._text)
        found = [open_end(pattern, self._text, self._at) for pattern in patterns if pattern]
        if self._stop_begin.search(self._text, self._at):  # mostly not, and far quicker than
            found.append(open_end(self._stop, self._text, self._at))
        return min(found, default=len(self._text))

    # A state appends events, and returns whether there may be more in the text that there is.

    def _begin(self, events: list[ReplyEvent], final: bool) -> bool:
        """Decide whether the reply begins with thinking."""
        start = self._markers[0] if self._markers else ""
        body = self._text.lstrip()
        if not final and len(body) < len(start) and start.startswith(body):
            return False
        thinks = start and body.startswith(start)
        if thinks:
            self._text = body[len(start) :]
        self._state = self._think if thinks or self._opened else self._answer
        return True

    def _think(self, events: list[ReplyEvent], final: bool) -> bool:
        end = compiled(self._thinking_end).search(self._text, self._at)
        safe = self._safe(self._thinking_end, final=final)
        if end is None or end.start() >= safe:
            events += self._reasoning.push(self._text[self._at : safe])
            self._at = safe
            return False
        events += self._reasoning.push(self._text[self._at : end.start()])
        if self._markers:  # what follows is a text of its own, for \A in patterns
            self._text, self._at, self._skips_lines = self._text[end.end() :], 0, True
        else:
            self._at = end.end()
        self._state = self._answer
        return True

    def _answer(self, events: list[ReplyEvent], final: bool) -> bool:
        if self._skips_lines:
            self._text = self._text.lstrip("\n")
            self._skips_lines = not self._text
        if self._open_call is not None:
            return self._go_on(self._open_call, events, final)
        form = self._form
        safe = self._safe(form.thinking, form.drop, final=final)
        if self._call and not final:
            begin = max(self._at, self._calls_from)
            safe = min(safe, open_end(self._call, self._text, begin))
        first = self._first()
        if first is None or first.start() >= safe:
            events += self._content.push(self._text[self._at : safe])
            self._at = safe
            return False
        events += self._content.push(self._text[self._at : first.start()])
        self._at = first.start()
        if first.re.pattern == self._call:
            self._open_call = OpenCall(first, form, self._tools)
            return True
        self._at = first.end()
        if first.re.pattern == form.thinking:
            self._has_reasoned |= not self._reasoning.empty
            before = "\n" if self._has_reasoned else ""
            self._reasoning, self._state = _Trimmed("reasoning", True, before), self._think
            return True
        return self._at > first.start()

    def _first(self) -> re.Match[str] | None:
        """The first match of any pattern."""
        found = [
            match
            for pattern in self._patterns
            if (
                match := compiled(pattern).search(
                    self._text, max(self._at, self._calls_from * (pattern == self._call))
                )
            )
        ]
        return min(found, key=lambda match: match.start(), default=None)

    def _go_on(self, call: OpenCall, events: list[ReplyEvent], final: bool) -> bool:
        """Go on with a call that has begun."""
        if (parsed := call.parse(self._text, final)) is None:
            return False
        self._open_call = None
        calls, end = parsed
        if not calls:
            self._calls_from = max(end, call.match.start() + 1)
            return True
        self._at = end
        self._content.strips = True
        events += [ReplyEvent("call", call=each) for each in calls]
        return True


def whole_reply(
    text: str,
    info: TemplateInfo,
    tools: Sequence[dict[str, Any]] | None = None,
    *,
    in_thinking: bool = False,
) -> list[ReplyEvent]:
    """Parse a reply that is there as a whole, as a ReplyStream with these settings would."""
    if not in_thinking and _is_plain(text, info, tools):
        return [ReplyEvent("text", text)] if text else []
    return ReplyStream(info, tools, in_thinking=in_thinking).finish(text)


def _is_plain(text: str, info: TemplateInfo, tools: Sequence[dict[str, Any]] | None) -> bool:
    """Whether a whole reply is its text: most are, and this is found sooner than their parts."""
    if _fixed_markers(info.thinking, info.stop).search(text):
        return False
    form = info.reply
    patterns = (form.thinking, form.drop, form.call if tools != [] else "")
    return not any(pattern and compiled(pattern).search(text) for pattern in patterns)


@lru_cache(maxsize=64)
def _stop_patterns(stops: tuple[str, ...]) -> tuple[str, re.Pattern[str]]:
    """Patterns of any stop token with the white space that follows, and of how one begins."""
    joined = "|".join(map(re.escape, stops))
    firsts = "".join({re.escape(stop[0]) for stop in stops if stop})
    return (
        f"(?:{joined})\\s*" if joined else "",
        compiled(f"[{firsts}]" if firsts else "(?!)"),
    )


@lru_cache(maxsize=64)
def _fixed_markers(thinking: tuple[str, str] | None, stops: tuple[str, ...]) -> re.Pattern[str]:
    """Pattern of what opens the thinking, and of stop tokens."""
    return compiled("|".join(map(re.escape, (*(thinking or ())[:1], *stops))) or "(?!)")


class _Trimmed:
    """Text of one kind. White space at its end is held back, since it may be dropped.

    strips: white space at the beginning is dropped. before: comes before the first text.
    """

    def __init__(self, kind: Literal["text", "reasoning"], strips: bool, before: str = "") -> None:
        self._kind: Literal["text", "reasoning"] = kind
        self.strips, self._before, self._held = strips, before, ""
        self.empty = True  # nothing was returned

    def push(self, text: str) -> list[ReplyEvent]:
        text = self._held + text
        if self.empty and self.strips:
            text = text.lstrip()
        kept = text.rstrip()
        self._held = text[len(kept) :]
        if not kept:
            return []
        before, self._before, self.empty = self._before, "", False
        return [ReplyEvent(self._kind, before + kept)]

    def rest(self) -> list[ReplyEvent]:
        return [ReplyEvent(self._kind, self._held)] if self._held else []
