"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's wire, on the same answers."""

import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

from pydantic import TypeAdapter

from tunewright.inference import GenerateRequest
from tunewright_hf.templates.reply_stream import ReplyEvent
from tunewright_serve.chat import new_id
from tunewright_serve.conversation import wire_conversation
from tunewright_serve.errors import ApiError
from tunewright_serve.replies import ChatJob, ReplyStep, chat_steps, prepare, whole_replies
from tunewright_serve.sampling import stop_strings
from tunewright_serve.schemas import check_schema
from tunewright_serve.service import Service
from tunewright_serve.sse import event
from tunewright_serve.wire import WireMessage
from tunewright_serve.wire_other import AnthropicTool, Block, CountBody, MessagesBody

__all__ = ["WITHOUT_EFFECT", "count_tokens", "message_answer", "message_events", "message_job"]

WITHOUT_EFFECT = frozenset(("metadata", "service_tier"))
_MESSAGE = TypeAdapter(WireMessage)
_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def message_job(service: Service, body: CountBody) -> ChatJob:
    """Translate a body for the engine. Raises ApiError."""
    request = GenerateRequest(model=service.model(body.model)[1], max_new_tokens=0)
    if isinstance(body, MessagesBody):
        request.max_new_tokens = body.max_tokens
        request.temperature, request.top_p, request.top_k = (
            body.temperature,
            body.top_p,
            body.top_k,
        )
        request.stop = stop_strings(body.stop_sequences)
    job = ChatJob(request)
    _choose_tools(service, job, body)
    variables = {}
    if body.thinking is not None:
        variables["enable_thinking"] = body.thinking.type != "disabled"
    messages = [_MESSAGE.validate_python(each) for each in _messages(body)]
    request.conversation = wire_conversation(
        messages, job.tools, variables, service.engine.features, service.media_hosts
    )
    return job


def _choose_tools(service: Service, job: ChatJob, body: CountBody) -> None:
    tools, choice = body.tools or [], body.tool_choice
    if choice is not None and choice.type in ("any", "tool"):
        if choice.type == "tool":
            tools = [tool for tool in tools if tool.name == choice.name]
        job.choice = "named" if choice.type == "tool" else "required"
        if not tools:
            problem = f"tool_choice: there is no tool {choice.name or ''!r}"
            raise ApiError(problem, param="tool_choice")
        for tool in tools:
            check_schema(tool.input_schema, "tools")
        service.require("guides", "tool_choice", "guided decoding, which a forced call needs")
    if choice is None or choice.type != "none":
        job.tools = [_tool(tool) for tool in tools]
    if choice is not None and choice.disable_parallel_tool_use:
        job.parallel = False


def _tool(tool: AnthropicTool) -> dict[str, Any]:
    """A tool as templates get it."""
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
    if tool.description:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def _messages(body: CountBody) -> Iterator[dict[str, Any]]:
    """The messages as OpenAI's wire has them."""
    if body.system:
        yield {"role": "system", "content": _text(body.system, "system")}
    for number, message in enumerate(body.messages):
        place, content = f"messages[{number}]", message.content
        blocks = [Block(type="text", text=content)] if isinstance(content, str) else content
        if message.role == "assistant":
            yield _assistant(blocks, place)
        else:
            yield from _user(blocks, place)


def _assistant(blocks: list[Block], place: str) -> dict[str, Any]:
    calls = [
        {
            "id": block.id or "",
            "function": {"name": block.name or "", "arguments": json.dumps(block.input or {})},
        }
        for block in blocks
        if block.type == "tool_use"
    ]
    thinking = "\n".join(b.thinking or "" for b in blocks if b.type == "thinking")
    spoken = [b for b in blocks if b.type not in ("tool_use", "thinking", "redacted_thinking")]
    message: dict[str, Any] = {"role": "assistant", "content": _text(spoken, place)}
    message |= {"tool_calls": calls} if calls else {}
    return message | ({"reasoning": thinking} if thinking else {})


def _user(blocks: list[Block], place: str) -> Iterator[dict[str, Any]]:
    """Results of tools first, as the calls before them ask for."""
    for block in blocks:
        if block.type == "tool_result":
            content = _content(block.content or "", place)
            yield {"role": "tool", "tool_call_id": block.tool_use_id, "content": content}
    spoken = [block for block in blocks if block.type != "tool_result"]
    if spoken or not blocks:
        yield {"role": "user", "content": _content(spoken, place)}


def _content(content: str | list[Block], place: str) -> str | list[dict[str, Any]]:
    """Text, or the parts of OpenAI's wire where there are images."""
    if isinstance(content, str) or not any(block.type == "image" for block in content):
        return _text(content, place)
    return [
        {"type": "image_url", "image_url": _url(block, place)}
        if block.type == "image"
        else {"type": "text", "text": _text([block], place)}
        for block in content
    ]


def _url(block: Block, place: str) -> str:
    source = block.source
    if source is None or source.type == "url":
        return source.url or "" if source else ""
    return f"data:{source.media_type};base64,{source.data}"


def _text(content: str | list[Block], place: str) -> str:
    if isinstance(content, str):
        return content
    if wrong := next((block for block in content if block.type != "text"), None):
        problem = f"{place}: this server takes text only, and no {wrong.type} here"
        raise ApiError(problem, param="messages")
    return "".join(block.text or "" for block in content)


async def count_tokens(service: Service, body: CountBody) -> dict[str, Any]:
    ids = await service.encode(message_job(service, body).request)
    return {"input_tokens": len(ids)}


def _stop_reason(step: ReplyStep) -> tuple[str, str | None]:
    """stop_reason and stop_sequence."""
    if isinstance(step.stop, str) and step.finish == "stop":
        return "stop_sequence", step.stop
    return _REASONS[step.finish or "stop"], None


def _message(job: ChatJob, model: str) -> dict[str, Any]:
    """A message without content."""
    return {
        "id": new_id("msg"),
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": job.prompt_tokens, "output_tokens": 0},
    }


async def message_answer(service: Service, job: ChatJob, model: str) -> dict[str, Any]:
    """The whole response."""
    await prepare(service, job)
    message, blocks = _message(job, model), _Blocks()
    [step] = await whole_replies(service, job)
    for each in step.events:
        blocks.add(each)
    message["stop_reason"], message["stop_sequence"] = _stop_reason(step)
    message["usage"]["output_tokens"] = step.completion_tokens
    return message | {"content": blocks.found}


async def message_events(service: Service, job: ChatJob, model: str) -> AsyncGenerator[bytes]:
    """The response as events. The first are yielded when the answer has begun."""
    await prepare(service, job)
    start = {"type": "message_start", "message": _message(job, model)}
    data, blocks = [event(start, "message_start")], _Blocks()
    async with aclosing(chat_steps(service, job)) as batches:
        async for steps in batches:
            for step in steps:
                for each in step.events:
                    data += [event(found, found["type"]) for found in blocks.add(each)]
                if step.finish is not None:
                    data += [event(found, found["type"]) for found in blocks.end(step)]
            if not steps:
                data.append(event({"type": "ping"}, "ping"))
            if data:
                yield b"".join(data)
                data = []


class _Blocks:
    """Content blocks of an answer, and the events that tell of them."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []
        self._open = False

    def add(self, each: ReplyEvent) -> list[dict[str, Any]]:
        if each.call is not None:
            fields = {"id": each.call.id or new_id("toolu"), "name": each.call.name}
            made = {"type": "tool_use", **fields, "input": each.call.arguments}
            partial = json.dumps(each.call.arguments, ensure_ascii=False)
            delta = {"type": "input_json_delta", "partial_json": partial}
            opened = self._begin(made, made | {"input": {}})
            return [*opened, self._delta(delta), *self._close()]
        kind = "text" if each.kind == "text" else "thinking"
        events = []
        if not self._open or self.found[-1]["type"] != kind:
            empty = {"type": kind, kind: ""} | ({"signature": ""} if kind == "thinking" else {})
            events = self._begin(dict(empty), empty)
        self.found[-1][kind] += each.text
        return [*events, self._delta({"type": f"{kind}_delta", kind: each.text})]

    def end(self, step: ReplyStep) -> list[dict[str, Any]]:
        reason, stop = _stop_reason(step)
        delta = {"stop_reason": reason, "stop_sequence": stop}
        counted = {"output_tokens": step.completion_tokens}
        last = {"type": "message_delta", "delta": delta, "usage": counted}
        return [*self._close(), last, {"type": "message_stop"}]

    def _begin(self, block: dict[str, Any], shown: dict[str, Any]) -> list[dict[str, Any]]:
        closed = self._close()
        self.found.append(block)
        self._open = True
        number = len(self.found) - 1
        return [*closed, {"type": "content_block_start", "index": number, "content_block": shown}]

    def _delta(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": len(self.found) - 1, "delta": delta}

    def _close(self) -> list[dict[str, Any]]:
        was_open, self._open = self._open, False
        return [{"type": "content_block_stop", "index": len(self.found) - 1}] if was_open else []
