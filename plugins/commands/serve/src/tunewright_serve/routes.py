"""Handlers of the routes that take a body: from the checked body to the response."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any

from pydantic import TypeAdapter
from starlette.responses import Response

from tunewright_serve import anthropic, chat, completions, scoring, tokens
from tunewright_serve.errors import api_error
from tunewright_serve.service import Service
from tunewright_serve.sse import EventStream, Json, event
from tunewright_serve.wire import ChatBody, CompletionBody
from tunewright_serve.wire_other import (
    CountBody,
    DetokenizeBody,
    EmbeddingsBody,
    MessagesBody,
    RerankBody,
    ScoreBody,
    TokenizeBody,
)

__all__ = ["POSTS", "Handler"]

Handler = Callable[[Service, Any], Coroutine[Any, Any, Response | EventStream]]
_DONE = b"data: [DONE]\n\n"


async def _chat(service: Service, body: ChatBody) -> Response | EventStream:
    public = service.model(body.get("model"))[0]
    job = chat.chat_job(service, body)
    headers = _ignored(chat.without_effect(body))
    if body.get("stream"):
        return await _streamed(
            service, chat.chat_events(service, job, body, public), headers, _openai_error
        )
    return Json(await chat.chat_answer(service, job, public), headers=headers)


async def _completions(service: Service, body: CompletionBody) -> Response | EventStream:
    public = service.model(body.get("model"))[0]
    job = await completions.completion_job(service, body)
    headers = _ignored(body.keys() & completions.WITHOUT_EFFECT)
    if body.get("stream"):
        events = completions.completion_events(service, job, body, public)
        return await _streamed(service, events, headers, _openai_error)
    answer = await completions.completion_answer(service, job, public)
    return Json(answer, headers=headers)


async def _messages(service: Service, body: MessagesBody) -> Response | EventStream:
    public = service.model(body.model)[0]
    job = anthropic.message_job(service, body)
    headers = _ignored(body.model_fields_set & anthropic.WITHOUT_EFFECT)
    if body.stream:
        events = anthropic.message_events(service, job, public)
        return await _streamed(service, events, headers, _anthropic_error)
    return Json(await anthropic.message_answer(service, job, public), headers=headers)


def _plain(function: Callable[[Service, Any], Awaitable[dict[str, Any]]]) -> Handler:
    """Handler of a function that gives the JSON of the response."""

    async def handler(service: Service, body: Any) -> Response:
        return Json(await function(service, body))

    return handler


def _ignored(fields: set[str] | frozenset[str]) -> dict[str, str]:
    """Header that lists the given fields that have no effect."""
    return {"X-Tunewright-Ignored": ", ".join(sorted(fields))} if fields else {}


async def _streamed(
    service: Service,
    events: AsyncGenerator[bytes],
    headers: dict[str, str],
    told: Callable[[Exception], bytes],
) -> EventStream:
    """Wait for the first event: an error before it is an ordinary response."""
    try:
        first = await anext(events)
    except BaseException:
        await events.aclose()
        raise
    return EventStream(first, events, told, headers, service.limits.write_seconds)


def _openai_error(error: Exception) -> bytes:
    return event(api_error(error).as_dict()) + _DONE


def _anthropic_error(error: Exception) -> bytes:
    return event(api_error(error).as_dict("/v1/messages"), "error")


#: path → body, handler
POSTS: dict[str, tuple[TypeAdapter[Any], Handler]] = {
    "/v1/chat/completions": (TypeAdapter(ChatBody), _chat),
    "/v1/completions": (TypeAdapter(CompletionBody), _completions),
    "/v1/embeddings": (TypeAdapter(EmbeddingsBody), _plain(scoring.embeddings)),
    "/v1/score": (TypeAdapter(ScoreBody), _plain(scoring.scores)),
    "/v1/rerank": (TypeAdapter(RerankBody), _plain(scoring.rerank)),
    "/v1/messages": (TypeAdapter(MessagesBody), _messages),
    "/v1/messages/count_tokens": (TypeAdapter(CountBody), _plain(anthropic.count_tokens)),
    "/tokenize": (TypeAdapter(TokenizeBody), _plain(tokens.tokenize)),
    "/detokenize": (TypeAdapter(DetokenizeBody), _plain(tokens.detokenize)),
}
