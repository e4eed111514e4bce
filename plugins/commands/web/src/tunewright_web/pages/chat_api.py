"""API of chats."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import JSONResponse, Response, StreamingResponse

from tunewright_web.chat.chats import chats_of, engine_states
from tunewright_web.chat.conversation import Chat, parse_tools
from tunewright_web.chat.targets import arguments_of
from tunewright_web.chat.turn import Turn
from tunewright_web.chat.wishes import ChatChange, NewChat, PromptQuery, Wish
from tunewright_web.errors import WebError
from tunewright_web.page import Api, Call

__all__ = ["API"]


def _list(call: Call) -> Any:
    return [_brief(chat) for chat in chats_of(call.request).store.all()]


def _brief(chat: Chat) -> dict[str, Any]:
    return chat.model_dump(include={"id", "title", "created", "updated", "models"})


def _create(call: Call) -> Any:
    body: NewChat = call.body
    chats = chats_of(call.request)
    if body.tools and len(body.models) > 1:
        raise WebError("tools: two models side by side take none", status=422)
    for model in body.models:
        arguments_of(call.web, model)
    tools = parse_tools(json.dumps(body.tools))
    made = chats.store.create(body.models, body.system, tools, body.sampling)
    chats.engines(made, start=True)
    return _full(call, made)


def _full(call: Call, chat: Chat) -> dict[str, Any]:
    busy = chats_of(call.request).turn(chat.id) is not None
    return chat.model_dump() | {
        "engines": engine_states(chats_of(call.request), chat),
        "busy": busy,
    }


def _read(call: Call) -> Any:
    return _full(call, chats_of(call.request).current(call.path("id")))


def _change(call: Call) -> Any:
    body: ChatChange = call.body
    values = {name: getattr(body, name) for name in body.model_fields_set}
    values = {name: value for name, value in values.items() if value is not None}
    if "tools" in values:
        values["tools"] = parse_tools(json.dumps(values["tools"]))
    return _full(call, chats_of(call.request).change(call.path("id"), **values))


def _remove(call: Call) -> Any:
    chats_of(call.request).delete(call.path("id"))
    return {"deleted": call.path("id")}


def _say(call: Call) -> Any:
    turn = chats_of(call.request).say(call.path("id"), call.body)
    return _streamed(turn) if turn else JSONResponse({"waiting": True}, 202)


def _events(call: Call) -> Any:
    turn = chats_of(call.request).last_turn(call.path("id"))
    if turn is None:
        raise WebError("no reply is being generated", status=409)
    return _streamed(turn)


def _streamed(turn: Turn) -> Response:
    async def events() -> AsyncIterator[bytes]:
        sent = 0
        while True:
            finished, found = turn.finished, turn.events[sent:]
            sent += len(found)
            if found:
                yield b"".join(event.encoded() for event in found)
            elif finished:
                return
            else:
                await asyncio.sleep(0.04)

    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(events(), media_type="text/event-stream", headers=headers)


def _stop(call: Call) -> Any:
    chats, name = chats_of(call.request), call.path("id")
    turn = chats.turn(name)
    if turn is None:
        chats.store.load(name)
    else:
        turn.stop()
    return {"stopped": turn is not None}


def _prompt(call: Call) -> Any:
    return chats_of(call.request).prompt(call.path("id"), call.query.side)


_EVENTS = "text/event-stream"
API = (
    Api("GET", "/chats", _list, "Conversations, the newest first."),
    Api("POST", "/chats", _create, "Begin a conversation.", body=NewChat, status=201),
    Api("GET", "/chats/{id}", _read, "A conversation, and the state of its models."),
    Api("PATCH", "/chats/{id}", _change, "Change its settings.", body=ChatChange),
    Api("DELETE", "/chats/{id}", _remove, "Delete a conversation."),
    Api("POST", "/chats/{id}/messages", _say, "Send a message.", body=Wish, media=_EVENTS),
    Api("GET", "/chats/{id}/events", _events, "The last reply's events.", media=_EVENTS),
    Api("POST", "/chats/{id}/stop", _stop, "Stop the reply."),
    Api("GET", "/chats/{id}/prompt", _prompt, "Prompt and token ids.", query=PromptQuery),
)
