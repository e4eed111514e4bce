"""From token ids to text while they come: no half characters, no stop strings."""

from collections.abc import Callable

HALF = "\ufffd"  # what tokenizers decode an incomplete UTF-8 sequence to


class TextStream:
    """Text of a growing list of ids.

    decode: ids → text. stop: strings that end the answer and are not part of it.
    """

    def __init__(self, decode: Callable[[list[int]], str], stop: tuple[str, ...] = ()) -> None:
        self._decode, self._stop = decode, stop
        self._ids: list[int] = []
        self._context = self._done = (
            0  # ids[context:done] is given out already; it decides how later ids decode
        )
        self._held = ""  # decoded, and perhaps the beginning of a stop string
        self.stopped = False  # a stop string was met

    def push(self, token: int) -> str:
        """The text that is certain now."""
        self._ids.append(token)
        if self._text().endswith(HALF):
            return ""
        return self._release()

    def finish(self) -> str:
        """What is left when no more ids come."""
        rest = self._release() + self._held
        self._held = ""
        return rest

    def _text(self) -> str:
        """Text of the ids that were not given out yet."""
        given = self._decode(self._ids[self._context : self._done])
        return self._decode(self._ids[self._context :])[len(given) :]

    def _release(self) -> str:
        text = self._held + self._text()
        self._context, self._done = self._done, len(self._ids)
        found = [at for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of the text that the stop string begins with."""
    return next(
        (n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0
    )
