"""The time limit of answers that are waited for as a whole."""

import asyncio

__all__ = ["Deadlines"]


class Deadlines:
    """Gives a TimeoutError to futures that are not done after so many seconds. All have the same
    time, so the first that waits is due first, and one timer serves all: a timer for each request
    would cost a twentieth of it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due: dict[asyncio.Future[None], float] = {}  # in order of the times
        self._timer: asyncio.TimerHandle | None = None

    def add(self, future: asyncio.Future[None]) -> None:
        loop = future.get_loop()
        self._due[future] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._expire, loop)

    def discard(self, future: asyncio.Future[None]) -> None:
        self._due.pop(future, None)

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        for future, due in list(self._due.items()):
            if due > loop.time():
                self._timer = loop.call_at(due, self._expire, loop)
                return
            del self._due[future]
            if not future.done():
                future.set_exception(TimeoutError())
