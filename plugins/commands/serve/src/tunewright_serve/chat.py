"""POST /v1/chat/completions."""

import json
import random
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from tunewright.inference import JsonSchema
from tunewright.types import ToolCall
from tunewright_serve.conversation import tool_schemas, wire_conversation
from tunewright_serve.errors import ApiError
from tunewright_serve.logprobs import chat_logprobs
from tunewright_serve.replies import ChatJob, ReplyStep, chat_steps, prepare, whole_replies
from tunewright_serve.sampling import sampling_request
from tunewright_serve.schemas import ANY_OBJECT, check_schema
from tunewright_serve.service import Service
from tunewright_serve.sse import KEEP_ALIVE, choice_events, event
from tunewright_serve.wire import ChatBody, ChosenTool, ResponseFormat

__all__ = ["chat_answer", "chat_events", "chat_job", "new_id", "usage", "without_effect"]

_WITHOUT_EFFECT = frozenset(
    (
        "metadata",
        "modalities",
        "prompt_cache_key",
        "safety_identifier",
        "service_tier",
        "skip_special_tokens",
        "store",
        "user",
    )
)


#: fields for the form of answers, which most requests leave out
_FORM = frozenset(
    (
        "chat_template_kwargs",
        "logprobs",
        "parallel_tool_calls",
        "reasoning_effort",
        "response_format",
        "stream_options",
        "tool_choice",
        "tools",
        "top_logprobs",
    )
)

# names answers, and keeps no secret; not the module's own numbers, which an engine may seed
_RANDOM = random.Random()


def new_id(prefix: str) -> str:
    return f"{prefix}-{_RANDOM.getrandbits(128):032x}"


def without_effect(body: ChatBody) -> set[str]:
    """The fields of a body that change nothing here."""
    found = set(body.keys() & _WITHOUT_EFFECT)
    for message in body["messages"]:
        if message.get("name") and message["role"] != "tool":
            found.add("messages.name")
    for tool in body.get("tools") or ():
        if tool.function.strict:
            found.add("tools.function.strict")
    return found


def _head(kind: str, model: str) -> dict[str, Any]:
    """Fields that are the same in all chunks of a response."""
    return {
        "id": new_id("chatcmpl"),
        "object": kind,
        "created": int(time.time()),
        "model": model,
    }


def chat_job(service: Service, body: ChatBody) -> ChatJob:
    """Translate a body for the engine. Raises ApiError."""
    model = service.model(body.get("model"))[1]
    most = body.get("max_completion_tokens") or body.get("max_tokens")
    job = ChatJob(sampling_request(body, model, max_new_tokens=most))
    variables: dict[str, Any] = {}
    if not _FORM.isdisjoint(body):
        _set_form(service, job, body)
        variables |= body.get("chat_template_kwargs") or {}
        if (effort := body.get("reasoning_effort")) is not None:
            variables.setdefault("reasoning_effort", effort)
    job.request.conversation = wire_conversation(
        body["messages"], job.tools, variables, service.engine.features, service.media_hosts
    )
    return job


def _set_form(service: Service, job: ChatJob, body: ChatBody) -> None:
    """Set what the answers consist of: tools, log-probabilities, JSON."""
    if body.get("stream_options") is not None and not body.get("stream"):
        raise ApiError("stream_options: only with stream", param="stream_options")
    if body.get("top_logprobs") is not None and not body.get("logprobs"):
        raise ApiError("top_logprobs: only with logprobs", param="top_logprobs")
    if body.get("logprobs"):
        service.require("logprobs", "logprobs", "log-probabilities")
        job.request.logprobs = body.get("top_logprobs") or 0
    job.parallel = body.get("parallel_tool_calls")
    _choose_tools(service, job, body, tool_schemas(body.get("tools") or []))
    asked = body.get("response_format")
    if asked is not None and asked.type != "text":
        if job.choice != "auto":
            problem = "response_format: not together with a tool_choice that forces a call"
            raise ApiError(problem, param="response_format")
        service.require("guides", "response_format", "guided decoding")
        job.request.guide = JsonSchema(_schema(asked))


def _schema(asked: ResponseFormat) -> dict[str, Any]:
    if asked.type == "json_object":
        return ANY_OBJECT
    if asked.json_schema is None:
        problem = "response_format: type json_schema needs json_schema"
        raise ApiError(problem, param="response_format")
    check_schema(asked.json_schema.schema_, "response_format")
    return asked.json_schema.schema_


def _choose_tools(
    service: Service, job: ChatJob, body: ChatBody, tools: list[dict[str, Any]]
) -> None:
    """Set the tools that the model sees, and whether it must call one."""
    choice = body.get("tool_choice")
    if choice is None or choice == "auto":
        job.tools = tools
        return
    if choice == "none":
        return
    if not tools:
        raise ApiError("tool_choice: there are no tools", param="tool_choice")
    service.require("guides", "tool_choice", "guided decoding, which a forced call needs")
    if isinstance(choice, ChosenTool):
        name = choice.function.name
        tools = [tool for tool in tools if tool["function"]["name"] == name]
        if not tools:
            problem = f"tool_choice: there is no tool {name!r:.200} in tools"
            raise ApiError(problem, param="tool_choice")
    for tool in tools:
        check_schema(tool["function"].get("parameters") or {}, "tools")
    job.tools, job.choice = tools, "named" if isinstance(choice, ChosenTool) else "required"


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def _choice(step: ReplyStep, has_logprobs: bool) -> dict[str, Any]:
    """A whole answer."""
    text, reasoning, calls = "", "", []
    for each in step.events:
        if each.call is not None:
            calls.append(call_dict(each.call))
        elif each.kind == "text":
            text += each.text
        else:
            reasoning += each.text
    content = None if calls and not text else text
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if reasoning:
        message |= {"reasoning": reasoning, "reasoning_content": reasoning}
    if calls:
        message["tool_calls"] = calls
    logprobs = {"content": chat_logprobs(step.tokens), "refusal": None} if has_logprobs else None
    return {
        "index": step.index,
        "message": message,
        "logprobs": logprobs,
        "finish_reason": step.finish,
    }


def call_dict(call: ToolCall) -> dict[str, Any]:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return {
        "id": call.id or new_id("call"),
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }


async def chat_answer(service: Service, job: ChatJob, model: str) -> dict[str, Any]:
    """The whole response."""
    await prepare(service, job)
    has_logprobs = job.request.logprobs is not None
    steps = await whole_replies(service, job)
    return _head("chat.completion", model) | {
        "choices": [_choice(step, has_logprobs) for step in steps],
        "usage": usage(job.prompt_tokens, sum(step.completion_tokens for step in steps)),
    }


async def chat_events(
    service: Service, job: ChatJob, body: ChatBody, model: str
) -> AsyncGenerator[bytes]:
    """The response as events. The first is yielded when the answer has begun."""
    await prepare(service, job)
    options, head = body.get("stream_options"), _head("chat.completion.chunk", model)
    says_usage = options is not None and bool(options.continuous_usage_stats)
    if options and options.include_usage:
        head["usage"] = None
    choices = [_Streamed(n, job.request.logprobs is not None) for n in range(job.request.n)]
    made = choice_events(head)
    opening = [made(choice.opening()) for choice in choices]
    async with aclosing(chat_steps(service, job)) as batches:
        async for steps in batches:
            data, opening = opening, []
            for step in steps:
                chunk = choices[step.index].chunk(step)
                if chunk is None:
                    continue
                if says_usage:
                    tokens = sum(c.completion_tokens for c in choices)
                    made = choice_events(head | {"usage": usage(job.prompt_tokens, tokens)})
                data.append(made(chunk))
            if data or not steps:
                yield b"".join(data) or KEEP_ALIVE
    if options and options.include_usage:
        numbers = usage(job.prompt_tokens, sum(c.completion_tokens for c in choices))
        yield event(head | {"choices": [], "usage": numbers})
    yield b"data: [DONE]\n\n"


_NAMES = {"text": ("content",), "reasoning": ("reasoning", "reasoning_content")}


class _Streamed:
    """One answer, in chunks."""

    def __init__(self, index: int, has_logprobs: bool) -> None:
        self._index, self._has_logprobs, self._calls = index, has_logprobs, 0
        self.completion_tokens = 0

    def opening(self) -> dict[str, Any]:
        return self._choice({"role": "assistant", "content": ""})

    def chunk(self, step: ReplyStep) -> dict[str, Any] | None:
        """The step as a choice of a chunk; None: it has nothing that shows."""
        self.completion_tokens = max(self.completion_tokens, step.completion_tokens)
        delta: dict[str, Any] = {}
        for each in step.events:
            if each.call is not None:
                call = {"index": self._calls} | call_dict(each.call)
                delta.setdefault("tool_calls", []).append(call)
                self._calls += 1
                continue
            for name in _NAMES[each.kind]:
                delta[name] = delta.get(name, "") + each.text
        tokens = chat_logprobs(step.tokens) if self._has_logprobs else []
        if not delta and not tokens and step.finish is None:
            return None
        return self._choice(delta, tokens, step.finish)

    def _choice(
        self, delta: dict[str, Any], tokens: list[Any] | None = None, finish: str | None = None
    ) -> dict[str, Any]:
        return {
            "index": self._index,
            "delta": delta,
            "logprobs": {"content": tokens, "refusal": None} if tokens else None,
            "finish_reason": finish,
        }
