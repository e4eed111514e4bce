"""Requests given to the engine, and their pieces in the event loop."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from operator import attrgetter
from typing import Self

from tunewright.inference import GenerateRequest, Piece, Ticket, TokenScore
from tunewright_serve.errors import ApiError, unavailable
from tunewright_serve.service import Service

__all__ = ["answer_batches", "whole_answers"]

_MAX_UNREAD = 256  # pieces of an answer that a client has not read
_SHORT = 4096  # tokens
_TEXT, _TOKENS, _INDEX = attrgetter("text"), attrgetter("tokens"), attrgetter("index")
_AT_ONCE = ("error", "cancelled")  # ends that are told before the other answers have ended


async def whole_answers(service: Service, requests: list[GenerateRequest]) -> list[Piece]:
    """Submit requests and return each answer as one piece; those of the first request come first.

    Cancelling it cancels the requests. Raises ApiError if a request cannot be answered or the
    engine fails, TimeoutError.
    """
    with service.counted(), _Whole(service, requests) as answers:
        for request in requests:
            await answers.submit(request)
        await answers.complete
        return answers.pieces()


async def answer_batches(
    service: Service, requests: list[GenerateRequest]
) -> AsyncGenerator[list[Piece]]:
    """Submit requests and yield what has come, one piece an answer, again and again, until the last
    of each.

    Answers are numbered through: those of the first request come first. An empty list is yielded
    where nothing came for `quiet_seconds`. Closing the generator cancels the requests. Raises
    ApiError if a request cannot be answered or the engine fails, TimeoutError.
    """
    loop, limits = asyncio.get_running_loop(), service.limits
    deadline = loop.time() + limits.answer_seconds
    with service.counted(), _Mailbox(service, requests) as mailbox:
        for request in requests:
            await mailbox.submit(request)
        while mailbox.open_answers:
            if (left := deadline - loop.time()) <= 0:
                raise TimeoutError
            yield await mailbox.take(min(limits.quiet_seconds, left))


class _Reader:
    """Pieces on their way from the engine's thread to one reader in the event loop.

    answers: of all requests together.
    """

    def __init__(self, service: Service, requests: list[GenerateRequest]) -> None:
        self.answers = sum(request.n for request in requests)
        self._service, self._loop = service, asyncio.get_running_loop()
        self._numbered = 0  # answers of the requests so far
        self._tickets: list[Ticket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for ticket in self._tickets:
            ticket.cancel()

    def listen(self, piece: Piece) -> None:
        """Take a piece, in a thread of the engine."""
        raise NotImplementedError

    def _wake(self, function: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the event loop is closed: the server has ended
            self._service.waker.call_soon(function)

    async def submit(self, request: GenerateRequest) -> None:
        first, self._numbered = self._numbered, self._numbered + request.n
        listen = self.listen
        if first:

            def listen(piece: Piece) -> None:
                self.listen(replace(piece, index=first + piece.index))

        engine = self._service.engine
        is_rendered = request.guide is None and isinstance(request.prompt, list)
        if is_rendered and len(request.prompt or ()) <= _SHORT:  # quicker than to change threads
            self._tickets.append(engine.submit(request, listen))
            return
        submission = self._service.in_pool(engine.submit, request, listen)
        try:
            self._tickets.append(await asyncio.shield(submission))
        except asyncio.CancelledError:  # the client is gone: cancel what the thread still submits
            submission.add_done_callback(_cancel_submitted)
            raise


class _Whole(_Reader):
    """Wakes its reader once, when all answers are complete or one has failed.

    complete: is done by then; or has a TimeoutError.
    """

    def __init__(self, service: Service, requests: list[GenerateRequest]) -> None:
        super().__init__(service, requests)
        # of each answer. Pieces are not kept: another thread makes them, and looks at them for less
        self._texts: list[list[str]] = [[] for _ in range(self.answers)]
        self._tokens: list[list[TokenScore]] = [[] for _ in range(self.answers)]
        self._prompts: list[tuple[TokenScore, ...]] = [()] * self.answers
        self._last: list[Piece] = []  # those that have ended
        self.complete: asyncio.Future[None] = self._loop.create_future()
        service.deadlines.add(self.complete)

    def __exit__(self, *error: object) -> None:
        self._service.deadlines.discard(self.complete)
        super().__exit__(*error)

    def listen(self, piece: Piece) -> None:
        number = piece.index
        self._texts[number].append(piece.text)
        if piece.tokens:
            self._tokens[number] += piece.tokens
        if piece.prompt:
            self._prompts[number] = piece.prompt
        if piece.finish_reason is not None:
            self._last.append(piece)
            if len(self._last) == self.answers or piece.finish_reason in _AT_ONCE:
                self._wake(self._end)

    def _end(self) -> None:
        if not self.complete.done():
            self.complete.set_result(None)

    def pieces(self) -> list[Piece]:
        """One for each answer, after `complete`. Raises ApiError."""
        for last in self._last:
            if last.finish_reason in _AT_ONCE:
                raise _failure(last)
        return [self._whole(last) for last in sorted(self._last, key=_INDEX)]

    def _whole(self, last: Piece) -> Piece:
        number = last.index
        return Piece(
            "".join(self._texts[number]),
            last.finish_reason,
            tuple(self._tokens[number]),
            last.completion_tokens,
            last.stop,
            index=number,
            prompt=self._prompts[number],
        )


class _Mailbox(_Reader):
    """Wakes its reader whenever something has come. open_answers: that have not ended."""

    def __init__(self, service: Service, requests: list[GenerateRequest]) -> None:
        super().__init__(service, requests)
        self.open_answers, self._limit = self.answers, _MAX_UNREAD * self.answers
        self._new: deque[Piece] = deque()
        self._is_filled, self._waiter = False, self._loop.create_future()
        self._is_sending = False  # whether the reader is at the client, with what it has taken
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def __exit__(self, *error: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().__exit__(*error)

    def listen(self, piece: Piece) -> None:
        self._new.append(piece)
        self._wake(self._look)

    def _look(self) -> None:
        self._fill()
        # a reader that waits here has only had no turn yet
        if self._is_sending and len(self._new) > self._limit:
            for ticket in self._tickets:  # its client does not read: neither wait nor keep all
                ticket.cancel()

    async def take(self, seconds: float) -> list[Piece]:
        """All pieces that have come; empty if none comes for so many seconds."""
        self._is_sending = False
        if not self._is_filled:
            self._due = self._loop.time() + seconds
            self._timer = self._timer or self._loop.call_at(self._due, self._ring)
            self._waiter = self._loop.create_future()
            await self._waiter
        self._is_filled, self._is_sending = False, True
        # the engine's thread may be adding to them
        pieces = [self._new.popleft() for _ in range(len(self._new))]
        if self.answers == 1:
            batch = [pieces] if pieces else []
        else:
            numbers = dict.fromkeys(piece.index for piece in pieces)
            batch = [[piece for piece in pieces if piece.index == n] for n in numbers]
        for of_one in batch:
            self.open_answers -= of_one[-1].finish_reason is not None
            if of_one[-1].finish_reason in _AT_ONCE:
                raise _failure(of_one[-1])
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


def _failure(last: Piece) -> ApiError:
    """The error of an answer that ended with one, or was cancelled."""
    if last.finish_reason == "cancelled":
        return ApiError("the answer was cancelled", status=503, code="cancelled")
    if last.unavailable:
        return unavailable("the engine was lost while it answered; try again later")
    return ApiError("the engine failed at this request", status=500, code="engine")


def _joined(pieces: list[Piece]) -> Piece:
    """Pieces of one answer as one: it is parsed and written once."""
    last = pieces[-1]
    if len(pieces) == 1:
        return last
    return Piece(
        "".join(map(_TEXT, pieces)),
        last.finish_reason,
        tuple(chain.from_iterable(map(_TOKENS, pieces))),
        last.completion_tokens,
        last.stop,
        index=last.index,
        prompt=pieces[0].prompt,
    )


def _cancel_submitted(submission: asyncio.Future[Ticket]) -> None:
    if submission.exception() is None:
        submission.result().cancel()
