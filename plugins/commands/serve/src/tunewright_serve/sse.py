"""Server-sent events, JSON, and work that ends when its client is gone."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any, Self

from pydantic_core import PydanticSerializationError, to_json
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

__all__ = [
    "KEEP_ALIVE",
    "ClientGone",
    "Connection",
    "EventStream",
    "Json",
    "choice_events",
    "event",
]

KEEP_ALIVE = b": keep-alive\n\n"


class ClientGone(Exception):
    """The client has closed the connection."""


class Json(Response):
    """Response of JSON. Its headers are made here, since Starlette's way costs as much as all of
    the JSON."""

    def __init__(
        self, content: Any, status_code: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        self.status_code, self.background, self.body = status_code, None, _dumped(content)
        self.raw_headers = [
            (b"content-length", b"%d" % len(self.body)),
            (b"content-type", b"application/json"),
        ]
        if headers:
            self.raw_headers += [(k.lower().encode(), v.encode()) for k, v in headers.items()]


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


def choice_events(head: dict[str, Any]) -> Callable[[Any], bytes]:
    """Function that makes an event of one choice and these fields, which are written once for
    all."""
    opening = b'data: %b,"choices":[' % _dumped(head).removesuffix(b"}")
    return lambda choice: b"%b%b]}\n\n" % (opening, _dumped(choice))


class Connection:
    """A client's connection, of which the server's protocol says that it is lost. The work in its
    block is then cancelled, and the block raises ClientGone: requests of a connection are answered
    one after another. A task that waits for `http.disconnect` would cost a request a tenth more."""

    def __init__(self) -> None:
        self._is_lost = False
        self._task: asyncio.Task[Any] | None = None

    def lose(self) -> None:
        self._is_lost = True
        if self._task is not None:
            self._task.cancel()

    def __enter__(self) -> Self:
        if self._is_lost:
            raise ClientGone
        self._task = asyncio.current_task()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        task, self._task = self._task, None
        is_cancelled = self._is_lost and kind is asyncio.CancelledError
        if is_cancelled and task is not None and not task.uncancel():
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
