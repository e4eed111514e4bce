"""Server-sent events, and work that ends when its client is gone."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from starlette.types import Receive, Send

__all__ = ["KEEP_ALIVE", "ClientGone", "EventStream", "event", "while_connected"]

T = TypeVar("T")
KEEP_ALIVE = b": keep-alive\n\n"
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class ClientGone(Exception):
    """The client has closed the connection."""


def event(data: Any, name: str = "") -> bytes:
    """One event with JSON as its data."""
    text = _ENCODER.encode(data)
    named = f"event: {name}\n" if name else ""
    return f"{named}data: {text}\n\n".encode()


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Do the work; cancel it and raise ClientGone when the client goes away.

    The request's body must have been read.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        for each in (task, gone):
            if not each.done():
                each.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await each


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream:
    """Response of events: `first` was made before the status was sent, the others follow.

    write_seconds: how long a client may read nothing.
    """

    def __init__(
        self,
        first: bytes,
        events: AsyncGenerator[bytes],
        headers: dict[str, str],
        write_seconds: float,
    ) -> None:
        self._first, self._events, self._write_seconds = first, events, write_seconds
        named = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
        self._headers = [
            (key.lower().encode(), value.encode()) for key, value in (named | headers).items()
        ]

    async def send_to(self, receive: Receive, send: Send) -> None:
        """Raises TimeoutError for a client that does not read."""
        try:
            await while_connected(receive, self._pump(send))
        finally:
            await self._events.aclose()

    async def _pump(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        async with asyncio.timeout(None) as limit:  # one for all writes: each would cost as much
            watch = _WriteWatch(limit, self._write_seconds)
            try:
                await watch.write(send, self._first)
                async for data in self._events:
                    await watch.write(send, data)
            finally:
                watch.end()
        await send({"type": "http.response.body", "body": b""})


class _WriteWatch:
    """Lets a timeout expire when a write takes longer than some seconds, or a quarter more."""

    def __init__(self, limit: asyncio.Timeout, seconds: float) -> None:
        self._limit, self._seconds, self._since = limit, seconds, 0.0
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(seconds, self._look)

    async def write(self, send: Send, data: bytes) -> None:
        self._since = self._loop.time()
        await send({"type": "http.response.body", "body": data, "more_body": True})
        self._since = 0.0

    def _look(self) -> None:
        now = self._loop.time()
        if self._since and now - self._since >= self._seconds:
            self._limit.reschedule(now)
        else:
            self._timer = self._loop.call_later(self._seconds / 4, self._look)

    def end(self) -> None:
        self._timer.cancel()
