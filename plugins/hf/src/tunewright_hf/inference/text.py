"""Streaming detokenisation: no incomplete characters, no stop strings."""

from collections.abc import Callable

__all__ = ["HALF", "TextStream"]

HALF = "\ufffd"  # what tokenizers decode an incomplete UTF-8 sequence to


class TextStream:
    """Text of a growing list of ids.

    decode: ids → text. stop: strings that end the answer and are not part of it.
    """

    def __init__(self, decode: Callable[[list[int]], str], stop: tuple[str, ...] = ()) -> None:
        self._decode, self._stop = decode, stop
        self._ids: list[int] = []
        self._context = self._done = (
            0  # ids[context:done] was already returned; it is the context for decoding later ids
        )
        self._held = ""  # decoded text that may be the start of a stop string
        self.stopped: str | None = None  # the stop string that was found

    def push(self, token: int) -> str:
        """Return the text that is final now."""
        self._ids.append(token)
        if self._text().endswith(HALF):
            return ""
        return self._release()

    def finish(self) -> str:
        """Return the remaining text when no more ids follow."""
        rest = self._release() + self._held
        self._held = ""
        return rest

    def _text(self) -> str:
        """Text of the ids that were not returned yet."""
        given = self._decode(self._ids[self._context : self._done])
        return self._decode(self._ids[self._context :])[len(given) :]

    def _release(self) -> str:
        text = self._held + self._text()
        self._context, self._done = self._done, len(self._ids)
        found = [(at, stop) for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            end, self.stopped = min(found)
            self._held = ""
            return text[:end]
        keep = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Number of characters at the end of the text that are a prefix of the stop string."""
    return next(
        (n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0
    )
