"""Calls from the engine's thread to the event loop."""

import asyncio
from collections import deque
from collections.abc import Callable

__all__ = ["Waker"]


class Waker:
    """Calls functions in the event loop, from other threads. The loop is woken once for all calls
    that come before it runs, such as those of all answers of a step."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: deque[Callable[[], None]] = deque()
        self._is_woken = False

    def attach(self) -> None:
        """Take the running loop."""
        self._loop = asyncio.get_running_loop()

    def call_soon(self, function: Callable[[], None]) -> None:
        """Raises RuntimeError if the loop is closed."""
        self._calls.append(function)
        if not self._is_woken:
            self._is_woken = True
            assert self._loop
            self._loop.call_soon_threadsafe(self._run)

    def _run(self) -> None:
        self._is_woken = False  # first: what comes from now on wakes the loop again
        while self._calls:
            self._calls.popleft()()
