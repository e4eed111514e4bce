"""POST /v1/completions: text or token ids, without a template."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from tunewright.inference import GenerateRequest, Piece
from tunewright_serve.answering import answer_batches, whole_answers
from tunewright_serve.chat import new_id, usage
from tunewright_serve.errors import ApiError
from tunewright_serve.logprobs import LegacyLogprobs
from tunewright_serve.sampling import sampling_request
from tunewright_serve.service import Service
from tunewright_serve.sse import KEEP_ALIVE, choice_events, event
from tunewright_serve.wire import CompletionBody

__all__ = ["WITHOUT_EFFECT", "completion_answer", "completion_events", "completion_job"]

WITHOUT_EFFECT = frozenset(("skip_special_tokens", "user"))
_DEFAULT_TOKENS = 16  # OpenAI's


@dataclass(slots=True)
class CompletionJob:
    """The prompts of a body, each a request of its own. echo: their texts, to be repeated."""

    requests: list[GenerateRequest]
    echo: list[str]
    prompt_tokens: int = 0


async def completion_job(service: Service, body: CompletionBody) -> CompletionJob:
    """Encode the prompts. Raises ApiError."""
    model = service.model(body.get("model"))[1]
    if body.get("stream_options") is not None and not body.get("stream"):
        raise ApiError("stream_options: only with stream", param="stream_options")
    if body.get("best_of") not in (None, body.get("n") or 1):
        raise ApiError("best_of: must be n, or left out", param="best_of")
    if body.get("logprobs") is not None:
        service.require("logprobs", "logprobs", "log-probabilities")
    most, logprobs = body.get("max_tokens"), body.get("logprobs")
    most = _DEFAULT_TOKENS if most is None else most
    request = sampling_request(body, model, max_new_tokens=most, logprobs=logprobs)
    if body.get("echo") and logprobs is not None:
        service.require("prompt_logprobs", "echo", "log-probabilities of prompts")
        request.prompt_logprobs = logprobs
    job = CompletionJob([], [])
    for prompt in _prompts(body):
        ids = await service.encode(replace(request, prompt=prompt))
        job.prompt_tokens += len(ids)
        job.requests.append(replace(request, prompt=ids))
        if body.get("echo"):
            is_text = isinstance(prompt, str)
            decoded = prompt if is_text else await service.in_pool(service.engine.decode, prompt)
            job.echo.append(decoded)
    return job


def _prompts(body: CompletionBody) -> list[Any]:
    found = body["prompt"]
    is_one = isinstance(found, str) or isinstance(found[0], int)
    return [found] if is_one else list(found)


class _Choice:
    """One answer."""

    def __init__(self, job: CompletionJob, index: int) -> None:
        request = job.requests[index // job.requests[0].n]
        self._index, self._top = index, request.logprobs
        self._echo = job.echo[index // request.n] if job.echo else ""
        # the offsets of an echoed prompt's tokens count from its beginning
        self._logprobs = LegacyLogprobs(self._top or 0)
        self.completion_tokens = 0

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """A piece as a choice; in the first, the echo."""
        self.completion_tokens = max(self.completion_tokens, piece.completion_tokens)
        echo, self._echo = self._echo, ""
        logprobs = None
        if self._top is not None:
            logprobs = self._logprobs.as_dict([*piece.prompt, *piece.tokens])
        return {
            "index": self._index,
            "text": echo + piece.text,
            "logprobs": logprobs,
            "finish_reason": piece.finish_reason,
        }


async def completion_answer(service: Service, job: CompletionJob, model: str) -> dict[str, Any]:
    """The whole response."""
    pieces = await whole_answers(service, job.requests)
    return _head(model) | {
        "choices": [_Choice(job, piece.index).chunk(piece) for piece in pieces],
        "usage": usage(job.prompt_tokens, sum(piece.completion_tokens for piece in pieces)),
    }


async def completion_events(
    service: Service, job: CompletionJob, body: CompletionBody, model: str
) -> AsyncGenerator[bytes]:
    """The response as events. The first is yielded when an answer has begun."""
    choices = [_Choice(job, n) for n in range(len(job.requests) * job.requests[0].n)]
    options, head = body.get("stream_options"), _head(model)
    if options and options.include_usage:
        head["usage"] = None
    made = choice_events(head)
    async with aclosing(answer_batches(service, job.requests)) as batches:
        async for batch in batches:
            chunks = [choices[piece.index].chunk(piece) for piece in batch]
            data = b"".join(map(made, chunks))
            yield data or KEEP_ALIVE
    if options and options.include_usage:
        numbers = usage(job.prompt_tokens, sum(c.completion_tokens for c in choices))
        yield event(head | {"choices": [], "usage": numbers})
    yield b"data: [DONE]\n\n"


def _head(model: str) -> dict[str, Any]:
    return {
        "id": new_id("cmpl"),
        "object": "text_completion",
        "created": int(time.time()),
        "model": model,
    }
