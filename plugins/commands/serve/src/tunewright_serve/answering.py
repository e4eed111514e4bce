"""Requests given to the engine, and their pieces in the event loop."""

import asyncio
import copy
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
        self.open_answers = self._to_end = self._answers = answers
        self._loop = asyncio.get_running_loop()
        self._pieces: deque[Piece] = deque()
        self._is_filled, self._waiter = False, self._loop.create_future()
        self._due, self._timer = 0.0, None  # type: float, asyncio.TimerHandle | None
        self._limit, self._whole = _MAX_UNREAD * answers, whole
        self._numbered = 0  # answers of the requests so far
        self._tickets: list[Ticket] = []
        self._waker = waker

    def __enter__(self) -> "_Mailbox":
        return self

    def __exit__(self, *error: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
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
        self._fill()
        if not self._whole and len(self._pieces) > self._limit:
            for ticket in self._tickets:  # its client does not read: neither wait nor keep all
                ticket.cancel()

    async def take(self, seconds: float) -> list[Piece]:
        """All pieces that have come; empty if none comes for so many seconds."""
        if not self._is_filled:
            self._due = self._loop.time() + seconds
            self._timer = self._timer or self._loop.call_at(self._due, self._ring)
            self._waiter = self._loop.create_future()
            await self._waiter
        self._is_filled = False
        # the engine's thread may be adding to them
        pieces = [self._pieces.popleft() for _ in range(len(self._pieces))]
        if self._answers == 1:
            batch = [pieces] if pieces else []
        else:
            numbers = dict.fromkeys(piece.index for piece in pieces)
            batch = [[piece for piece in pieces if piece.index == n] for n in numbers]
        self.open_answers -= sum(of_one[-1].finish_reason is not None for of_one in batch)
        return [_joined(of_one) for of_one in batch]

    def _ring(self) -> None:
        """End the wait when nothing came: one timer for all waits, since most are short."""
        left = self._due - self._loop.time()
        self._timer = self._loop.call_at(self._due, self._ring) if left > 0 else None
        if self._timer is None:
            self._fill()

    def _fill(self) -> None:
        self._is_filled = True
        if not self._waiter.done():
            self._waiter.set_result(None)


def _joined(pieces: list[Piece]) -> Piece:
    """Pieces of one answer as one: it is parsed and written once. Raises ApiError."""
    last = pieces[-1]
    if last.finish_reason == "error" and last.unavailable:
        raise unavailable("the engine was lost while it answered; try again later")
    if last.finish_reason == "error":
        raise ApiError("the engine failed at this request", status=500, code="engine")
    if last.finish_reason == "cancelled":
        raise ApiError("the answer was cancelled", status=503, code="cancelled")
    if len(pieces) == 1:
        return last
    joined = copy.copy(last)
    joined.text = "".join([piece.text for piece in pieces])
    if any(piece.tokens or piece.prompt for piece in pieces):
        joined.tokens = tuple(token for piece in pieces for token in piece.tokens)
        joined.prompt = tuple(token for piece in pieces for token in piece.prompt)
    return joined


def _cancel_submitted(submission: asyncio.Future[Ticket]) -> None:
    if submission.exception() is None:
        submission.result().cancel()
