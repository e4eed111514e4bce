"""Server-sent events, JSON, and work that ends when its client is gone."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any, Self

from pydantic_core import PydanticSerializationError, to_json
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

__all__ = ["KEEP_ALIVE", "ClientGone", "EventStream", "Json", "WhileConnected", "event"]

KEEP_ALIVE = b": keep-alive\n\n"


class ClientGone(Exception):
    """The client has closed the connection."""


class Json(Response):
    """Response of JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return _dumped(content)


def _dumped(data: Any) -> bytes:
    try:
        return to_json(data)
    except PydanticSerializationError:  # half of a surrogate pair, from an escape that a model wrote
        return json.dumps(data).encode()


def event(data: Any, name: str = "") -> bytes:
    """One event with JSON as its data."""
    if name:
        return b"event: %b\ndata: %b\n\n" % (name.encode(), _dumped(data))
    return b"data: %b\n\n" % _dumped(data)


class WhileConnected:
    """Cancels the work in its block when the client goes away, and raises ClientGone.

    The request's body must have been read.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive, self._is_gone = receive, False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task
        self._task = task
        self._watcher = asyncio.ensure_future(self._watch())
        return self

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._is_gone = True
        self._task.cancel()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._watcher.cancel()
        if self._is_gone and kind is asyncio.CancelledError and not self._task.uncancel():
            raise ClientGone


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

    status_code = 200

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises TimeoutError for a client that does not read."""
        try:
            await self._pump(send)
        finally:
            await self._events.aclose()

    async def _pump(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        async with asyncio.timeout(None) as limit:  # one for all writes: each would cost as much
            watch = _WriteWatch(limit, self._write_seconds)
            try:
                await watch.write(send, self._first)
                async for data in self._events:
                    # first the events of all streams are made, then all are written: a write wakes
                    # its reader, and with pauses between them each costs twice as much
                    await asyncio.sleep(0)
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
