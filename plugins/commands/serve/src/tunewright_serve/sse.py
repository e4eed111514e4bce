"""Server-sent events, JSON, and work that ends when its client is gone."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
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
    except (
        PydanticSerializationError
    ):  # half of a surrogate pair, from an escape that a model wrote
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

    told: the event of an error among them. write_seconds: how long a client may read nothing.
    """

    status_code = 200

    def __init__(
        self,
        first: bytes,
        events: AsyncGenerator[bytes],
        told: Callable[[Exception], bytes],
        headers: dict[str, str],
        write_seconds: float,
    ) -> None:
        self._first, self._events, self._told = first, events, told
        self._write_seconds = write_seconds
        named = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
        self._headers = [
            (key.lower().encode(), value.encode()) for key, value in (named | headers).items()
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises TimeoutError for a client that does not read."""
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        try:
            async with asyncio.timeout(
                None
            ) as limit:  # one for all writes: each would cost as much
                with _WriteWatch(limit, self._write_seconds) as watch:
                    await self._pump(send, watch)
        finally:
            await self._events.aclose()
        await send({"type": "http.response.body", "body": b""})

    async def _pump(self, send: Send, watch: "_WriteWatch") -> None:
        data, is_last = self._first, False
        while True:
            watch.since = watch.loop.time()
            await send({"type": "http.response.body", "body": data, "more_body": True})
            watch.since = 0.0
            if is_last:
                return
            try:
                data = await anext(self._events)
            except StopAsyncIteration:
                return
            except Exception as error:  # the status has been sent
                data, is_last = self._told(error), True
            # first the events of all streams are made, then all are written: a write wakes its
            # reader, and with pauses between them each costs twice as much
            await asyncio.sleep(0)


class _WriteWatch:
    """Lets a timeout expire when a write takes longer than some seconds, or a quarter more.

    since: time of the loop at which the write began; 0: there is none.
    """

    def __init__(self, limit: asyncio.Timeout, seconds: float) -> None:
        self._limit, self._seconds, self.since = limit, seconds, 0.0
        self.loop = asyncio.get_running_loop()

    def __enter__(self) -> Self:
        self._timer = self.loop.call_later(self._seconds, self._look)
        return self

    def __exit__(self, *error: object) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        now = self.loop.time()
        if self.since and now - self.since >= self._seconds:
            self._limit.reschedule(now)
        else:
            self._timer = self.loop.call_later(self._seconds / 4, self._look)
