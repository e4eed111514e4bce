"""Requests given to the engine, and their pieces in the event loop."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace

from tunewright.inference import GenerateRequest, Piece, Ticket
from tunewright_serve.errors import ApiError, unavailable
from tunewright_serve.service import Service
from tunewright_serve.waking import Waker

__all__ = ["answer_batches"]

_MAX_UNREAD = 256  # pieces of an answer that a client has not read
_SHORT = 4096  # tokens
_AT_ONCE = ("error", "cancelled")  # ends that are told before the other answers have ended


async def answer_batches(
    service: Service, requests: list[GenerateRequest], *, whole: bool = False
) -> AsyncGenerator[list[Piece]]:
    """Submit requests and yield what has come, one piece an answer, again and again, until the last
    of each.

    Answers are numbered through: those of the first request come first. An empty list is yielded
    where nothing came for `quiet_seconds`. whole: wait for the last piece of all, as far as that
    goes. Closing the generator cancels the requests. Raises ApiError if a request cannot be
    answered or the engine fails, TimeoutError.
    """
    loop, limits = asyncio.get_running_loop(), service.limits
    deadline = loop.time() + limits.answer_seconds
    answers = sum(request.n for request in requests)
    with service.counted(), _Mailbox(answers, service.waker, whole) as mailbox:
        for request in requests:
            await mailbox.submit(service, request)
        while mailbox.open_answers:
            if (left := deadline - loop.time()) <= 0:
                raise TimeoutError
            yield await mailbox.take(min(limits.quiet_seconds, left))


class _Mailbox:
    """Pieces on their way from the engine's thread to one reader in the event loop.

    answers: of all requests together.
    """

    def __init__(self, answers: int, waker: Waker, whole: bool) -> None:
        self.open_answers = self._to_end = answers
        self._loop = asyncio.get_running_loop()
        self._pieces: deque[Piece] = deque()
        self._filled = asyncio.Event()
        self._limit, self._whole = _MAX_UNREAD * answers, whole
        self._numbered = 0  # answers of the requests so far
        self._tickets: list[Ticket] = []
        self._waker = waker

    def __enter__(self) -> "_Mailbox":
        return self

    def __exit__(self, *error: object) -> None:
        for ticket in self._tickets:
            ticket.cancel()

    async def submit(self, service: Service, request: GenerateRequest) -> None:
        first, self._numbered = self._numbered, self._numbered + request.n

        def listen(piece: Piece) -> None:  # in the engine's thread
            self._pieces.append(replace(piece, index=first + piece.index) if first else piece)
            self._to_end -= piece.finish_reason is not None
            if not self._whole or not self._to_end or piece.finish_reason in _AT_ONCE:
                with suppress(RuntimeError):  # the event loop is closed: the server has ended
                    self._waker.call_soon(self._look)

        is_rendered = request.guide is None and isinstance(request.prompt, list)
        if is_rendered and len(request.prompt or ()) <= _SHORT:  # quicker than to change threads
            self._tickets.append(service.engine.submit(request, listen))
            return
        submission = service.in_pool(service.engine.submit, request, listen)
        try:
            self._tickets.append(await asyncio.shield(submission))
        except asyncio.CancelledError:  # the client is gone: cancel what the thread still submits
            submission.add_done_callback(_cancel_submitted)
            raise

    def _look(self) -> None:
        self._filled.set()
        if not self._whole and len(self._pieces) > self._limit:
            for ticket in self._tickets:  # its client does not read: neither wait nor keep all
                ticket.cancel()

    async def take(self, seconds: float) -> list[Piece]:
        """All pieces that have come; empty if none comes for so many seconds."""
        if not self._filled.is_set():
            timer = self._loop.call_later(seconds, self._filled.set)
            try:
                await self._filled.wait()
            finally:
                timer.cancel()
        self._filled.clear()
        batch: dict[int, list[Piece]] = {}
        while self._pieces:  # the engine's thread may be adding to them
            piece = self._pieces.popleft()
            if piece.finish_reason == "error" and piece.unavailable:
                raise unavailable("the engine was lost while it answered; try again later")
            if piece.finish_reason == "error":
                raise ApiError("the engine failed at this request", status=500, code="engine")
            if piece.finish_reason == "cancelled":
                raise ApiError("the answer was cancelled", status=503, code="cancelled")
            self.open_answers -= piece.finish_reason is not None
            batch.setdefault(piece.index, []).append(piece)
        return [_joined(pieces) for pieces in batch.values()]


def _joined(pieces: list[Piece]) -> Piece:
    """Pieces of one answer as one: it is parsed and written once."""
    if len(pieces) == 1:
        return pieces[0]
    return replace(
        pieces[-1],
        text="".join([piece.text for piece in pieces]),
        tokens=tuple(token for piece in pieces for token in piece.tokens),
        prompt=tuple(token for piece in pieces for token in piece.prompt),
    )


def _cancel_submitted(submission: asyncio.Future[Ticket]) -> None:
    if submission.exception() is None:
        submission.result().cancel()
