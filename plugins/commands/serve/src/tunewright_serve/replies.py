"""Answers to chats: submitted, and parsed into text, thinking and tool calls while they arrive."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

from tunewright import RowError
from tunewright.inference import GenerateRequest, JsonSchema, Piece, TokenScore
from tunewright.types import ToolCall
from tunewright_hf.templates.reply_stream import ReplyEvent, ReplyStream, whole_reply
from tunewright_serve.answering import answer_batches, whole_answers
from tunewright_serve.errors import ApiError
from tunewright_serve.schemas import ANY_OBJECT, call_schema
from tunewright_serve.service import Service

__all__ = ["ChatJob", "ReplyStep", "chat_steps", "prepare", "whole_replies"]

Finish = Literal["stop", "length", "tool_calls"]


@dataclass(slots=True)
class ChatJob:
    """A chat to be answered, whatever its wire."""

    request: GenerateRequest
    tools: list[dict[str, Any]] = field(default_factory=list)  # that the model may call
    choice: Literal["auto", "required", "named"] = "auto"
    parallel: bool | None = None  # several calls in an answer; None: not said
    in_thinking: bool = False  # set by prepare: the prompt has opened the thinking
    prompt_tokens: int = 0  # set by prepare


@dataclass(slots=True)
class ReplyStep:
    """Part of one answer, parsed."""

    index: int
    events: list[ReplyEvent]
    tokens: tuple[TokenScore, ...] = ()
    completion_tokens: int = 0
    finish: Finish | None = None
    stop: str | int | None = None


async def prepare(service: Service, job: ChatJob) -> None:
    """Render and encode the prompt, and set the guide of forced calls. Raises ApiError."""
    request = job.request
    ids = await service.encode(request)
    # submit need not render it again; the conversation stays for what is not text
    request.prompt, job.prompt_tokens = ids, len(ids)
    job.in_thinking = service.opens_thinking(ids)
    if job.choice == "required":
        request.guide = JsonSchema(call_schema(job.tools, job.parallel is True))
    elif job.choice == "named":
        request.guide = JsonSchema(job.tools[0]["function"].get("parameters") or ANY_OBJECT)
    if isinstance(request.guide, JsonSchema) and job.in_thinking and service.info.thinking:
        closing = f"\n{service.info.thinking[1]}\n\n"
        request.guide = JsonSchema(request.guide.schema, before=closing)


async def whole_replies(service: Service, job: ChatJob) -> list[ReplyStep]:
    """Submit a prepared job and return its answers, each as one step. Raises ApiError,
    TimeoutError."""
    try:
        pieces = await whole_answers(service, [job.request])
    except RowError as error:
        raise _refusal(job, error) from error
    return [_last_step(_Reply(service, job), piece) for piece in pieces]


async def chat_steps(service: Service, job: ChatJob) -> AsyncGenerator[list[ReplyStep]]:
    """Submit a prepared job and yield what is new, until the answers are complete.

    An empty list where nothing came for a while. Raises ApiError, before the first list if the
    request cannot be answered; TimeoutError.
    """
    parsers = [_Reply(service, job) for _ in range(job.request.n)]
    async with aclosing(answer_batches(service, [job.request])) as batches:
        try:
            async for batch in batches:
                yield [_step(parsers[piece.index], piece) for piece in batch]
        except RowError as error:
            raise _refusal(job, error) from error


def _refusal(job: ChatJob, error: RowError) -> Exception:
    """The error of a request that the engine does not take."""
    if error.place != "guide":
        return error
    param = "response_format" if job.choice == "auto" else "tools"
    return ApiError(f"{param}: {error.problem}", param=param)


def _step(parser: "_Reply", piece: Piece) -> ReplyStep:
    if piece.finish_reason is not None:
        return _last_step(parser, piece)
    events = parser.push(piece.text)
    return ReplyStep(piece.index, events, piece.tokens, piece.completion_tokens)


def _last_step(parser: "_Reply", piece: Piece) -> ReplyStep:
    events = parser.finish(piece.text)
    finish = parser.reason(piece.finish_reason == "length")
    return ReplyStep(piece.index, events, piece.tokens, piece.completion_tokens, finish, piece.stop)


class _Reply:
    """Parser of one answer."""

    def __init__(self, service: Service, job: ChatJob) -> None:
        self._info, self._job = service.info, job
        self._tools = job.tools if job.request.guide is None else []
        self._stream: ReplyStream | None = None  # of a reply that comes in parts
        self._json: list[str] | None = [] if job.choice != "auto" else None  # of forced calls
        self._calls = 0

    def push(self, text: str) -> list[ReplyEvent]:
        if self._stream is None:
            in_thinking = self._job.in_thinking
            self._stream = ReplyStream(self._info, self._tools, in_thinking=in_thinking)
        return self._checked(self._stream.push(text))

    def finish(self, text: str) -> list[ReplyEvent]:
        """The remaining events, text being the last."""
        if self._stream is None:
            in_thinking = self._job.in_thinking
            found = whole_reply(text, self._info, self._tools, in_thinking=in_thinking)
        else:
            found = self._stream.finish(text)
        events = self._checked(found)
        if self._json is not None:
            calls = self._forced("".join(self._json))
            events += self._checked([ReplyEvent("call", call=call) for call in calls])
        return events

    def reason(self, is_cut: bool) -> Finish:
        """The finish_reason as OpenAI has it: a named call that was asked for ends with stop."""
        if is_cut:
            return "length"
        return "tool_calls" if self._calls and self._job.choice != "named" else "stop"

    def _checked(self, events: list[ReplyEvent]) -> list[ReplyEvent]:
        kept = []
        for event in events:
            if event.kind == "text" and self._json is not None:
                self._json.append(event.text)
                continue
            if event.kind == "call":
                if self._calls and self._job.parallel is False:
                    continue
                self._calls += 1
            kept.append(event)
        return kept

    def _forced(self, text: str) -> list[ToolCall]:
        """Calls of a guided answer; none if it was cut off."""
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return []
        if self._job.choice == "named":
            return [ToolCall(self._job.tools[0]["function"]["name"], found)]
        items = found if isinstance(found, list) else [found]
        return [ToolCall(item["name"], item["arguments"]) for item in items]
