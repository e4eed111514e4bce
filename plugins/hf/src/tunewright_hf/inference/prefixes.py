"""Keys and values of prompts and answers, kept for prompts that begin alike."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["PrefixStore"]

_LEAST = 16  # tokens that are worth a copy


@dataclass(eq=False)
class _Entry:
    adapter: str | None
    ids: Any  # array of T ints
    contents: list[Any]  # SlotCache.contents


class PrefixStore:
    """The latest rows, up to so many tokens together. The least recently used go first.

    Rows are told apart by their keys: ids, and for tokens of media numbers of their content.
    """

    def __init__(self, tokens: int) -> None:
        self._limit, self._tokens = tokens, 0
        self._entries: deque[_Entry] = deque()

    def find(
        self, adapter: str | None, prompt: Sequence[int], least: int = 0
    ) -> tuple[list[Any], int]:
        """Contents of the row that shares the longest beginning with a prompt, and how many tokens
        it shares: at least `least`, at most all but the prompt's last. ([], 0) if there is none."""
        ids = np.asarray(prompt)
        best, length = None, max(_LEAST, least) - 1
        for entry in self._entries:
            if entry.adapter == adapter:
                common = _common(entry.ids, ids[:-1])
                if common > length:
                    best, length = entry, common
        if best is None:
            return [], 0
        self._entries.remove(best)
        self._entries.append(best)
        return best.contents, length

    def has(self, adapter: str | None, ids: Sequence[int]) -> bool:
        """Return whether all of these tokens are there, or too few to be worth it."""
        found = np.asarray(ids)
        return len(ids) < _LEAST or any(
            entry.adapter == adapter and _common(entry.ids, found) == len(ids)
            for entry in self._entries
        )

    def add(self, adapter: str | None, ids: Sequence[int], contents: list[Any]) -> None:
        """Keep a row's keys and values. Rows that are its beginning go."""
        found = np.asarray(ids)
        for entry in list(self._entries):
            if entry.adapter == adapter and _common(entry.ids, found) == len(entry.ids):
                self._drop(entry)
        self._entries.append(_Entry(adapter, found, contents))
        self._tokens += len(ids)
        while self._tokens > self._limit:
            self._drop(self._entries[0])

    def clear(self) -> None:
        self._entries.clear()
        self._tokens = 0

    def _drop(self, entry: _Entry) -> None:
        self._entries.remove(entry)
        self._tokens -= len(entry.ids)


def _common(one: Any, other: Any) -> int:
    """Tokens that both begin with."""
    size = min(len(one), len(other))
    differ = np.flatnonzero(one[:size] != other[:size])
    return int(differ[0]) if len(differ) else size
