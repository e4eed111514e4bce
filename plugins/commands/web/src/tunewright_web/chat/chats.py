"""All chats of a workbench: the conversations, their engines, and the replies that arrive."""

import threading
from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from tunewright_web.chat.conversation import LONGEST, Chat, Message, wire_messages
from tunewright_web.chat.engine import Engine
from tunewright_web.chat.pool import Pool
from tunewright_web.chat.store import Store
from tunewright_web.chat.targets import ChatModel, arguments_of
from tunewright_web.chat.turn import Turn
from tunewright_web.chat.wishes import Wish
from tunewright_web.errors import WebError
from tunewright_web.page import web_of

if TYPE_CHECKING:
    from tunewright_web.web import Web

__all__ = ["Chats", "chats_of", "engine_states"]

_LOCK = threading.Lock()


def chats_of(request: Request) -> "Chats":
    """The chats of the workbench that a request belongs to."""
    state = request.app.state
    with _LOCK:
        if not hasattr(state, "chats"):
            state.chats = Chats(web_of(request))
        found: Chats = state.chats
        return found


class Chats:
    """Conversations and what answers them. Its methods may be called from several threads."""

    def __init__(self, web: "Web") -> None:
        self._web = web
        self.store = Store(web.workspace.hidden / "chats")
        self.pool = Pool(web.workspace.root, web.workspace.hidden)
        self._turns: dict[str, Turn] = {}
        self._lock = threading.Lock()

    def engine(self, model: ChatModel, *, start: bool = False) -> Any:
        """The engine of a model; None, if there is none and none is to be started. Raises
        WebError."""
        arguments = arguments_of(self._web, model)
        return self.pool.start(arguments) if start else self.pool.find(arguments)

    def engines(self, chat: Chat, *, start: bool = False) -> list[Engine | None]:
        """The engine of each side. Raises WebError."""
        return [self.engine(model, start=start) for model in chat.models]

    def unload(self, chat: Chat) -> None:
        """Give the memory of a chat's models back. Raises WebError."""
        if self.turn(chat.id) is not None:
            raise WebError("a reply is being generated", "wait for it, or stop it", status=409)
        for model in chat.models:
            self.pool.end(arguments_of(self._web, model))

    # ---- replies ---------------------------------------------------------------------------------

    def turn(self, name: str) -> Turn | None:
        """The turn that is going on in a chat."""
        found = self._turns.get(name)
        return found if found is not None and not found.finished else None

    def last_turn(self, name: str) -> Turn | None:
        return self._turns.get(name)

    def current(self, name: str) -> Chat:
        """The chat; while a reply arrives, as it is in memory. Raises WebError."""
        turn = self.turn(name)
        return self.store.load(name) if turn is None else turn.chat

    def say(self, name: str, wish: Wish) -> Turn | None:
        """Do what a user asks for, and begin the replies. None: further results of tools are
        awaited. Raises WebError."""
        with self._lock:
            if self.turn(name) is not None:
                raise WebError("a reply is being generated", "wait for it, or stop it", status=409)
            chat = self.store.load(name)
            sides = _apply(chat, wish)
            self.store.save(chat)
            waiting = [side for side in sides if not chat.open_calls(side)]
            if not waiting:
                return None
            turn = self._turns[name] = Turn(self, chat, waiting)
            turn.start()
            return turn

    def change(self, name: str, **values: Any) -> Chat:
        """Change settings of a chat. Raises WebError."""
        with self._lock:
            if self.turn(name) is not None:
                raise WebError("a reply is being generated", "wait for it, or stop it", status=409)
            chat = self.store.load(name)
            for key, value in values.items():
                setattr(chat, key, value)
            if chat.tools and len(chat.models) > 1:
                raise WebError("tools: two models side by side take none", status=422)
            self.store.save(chat)
            return chat

    def delete(self, name: str) -> None:
        """Raises WebError."""
        if (turn := self.turn(name)) is not None:
            turn.stop()
        self.store.delete(name)

    def prompt(self, name: str, side: int) -> dict[str, Any]:
        """The prompt of the last reply, as text and as token ids. Raises WebError."""
        chat = self.current(name)
        if not 0 <= side < len(chat.sides):
            raise WebError(f"side: there is no {side}", status=404)
        engine = self.engine(chat.models[side])
        if engine is None or engine.state != "ready":
            raise WebError("the model is not loaded", "load it first", status=409)
        messages = chat.turn(side)

        def url(media: Any) -> str:
            return self.store.media_url(name, media)

        body: dict[str, Any] = {"messages": wire_messages(messages, chat.system, url)}
        if not body["messages"]:
            raise WebError("there is no message yet", status=409)
        if chat.tools:
            body["tools"] = chat.tools
        if "chat_template_kwargs" in (more := chat.sampling.wire()):
            body["chat_template_kwargs"] = more["chat_template_kwargs"]
        ids = engine.ask("/tokenize", body)["tokens"]
        return {"prompt": engine.ask("/detokenize", {"tokens": ids})["prompt"], "ids": ids}


def engine_states(chats: "Chats", chat: Chat) -> list[dict[str, Any]]:
    """The engine of each side, for people."""
    found = []
    for model in chat.models:
        try:
            engine = chats.engine(model)
        except WebError as error:
            found.append({"state": "failed", "line": error.error, "lines": [], "features": []})
            continue
        if engine is None or engine.state == "ended":
            found.append({"state": "unloaded", "line": "", "lines": [], "features": []})
        else:
            found.append(
                {
                    "state": engine.state,
                    "line": engine.line,
                    "lines": engine.lines,
                    "seconds": engine.seconds,
                    "features": sorted(engine.features),
                    "max_length": engine.max_length,
                }
            )
    return found


def _apply(chat: Chat, wish: Wish) -> list[int]:
    """Put what a user asks for into the conversation. Returns the sides that it concerns. Raises
    WebError."""
    if len(wish.content) > LONGEST:
        problem = f"the message has {len(wish.content):,} characters"
        raise WebError(problem, f"at most {LONGEST:,} are taken", status=422)
    sides = list(range(len(chat.sides)))
    if wish.regenerate:
        for side in sides:
            chat.sides[side][:] = chat.turn(side)
        if not chat.sides[0]:
            raise WebError("there is no message yet", status=409)
        return sides
    if wish.results:
        return _results(chat, wish)
    if not wish.content.strip() and not wish.media:
        raise WebError("the message is empty", status=422)
    if wish.edit is not None:
        chat.cut(wish.edit)
    if any(chat.open_calls(side) for side in sides):
        problem = "a tool call waits for its result"
        raise WebError(problem, "give it, or edit an earlier message", status=409)
    for side in sides:
        chat.sides[side].append(Message(role="user", content=wish.content, media=wish.media))
    return sides


def _results(chat: Chat, wish: Wish) -> list[int]:
    """Results of tool calls, in the order of the calls."""
    for side in range(len(chat.sides)):
        calls = chat.open_calls(side)
        given = {result.id: result.content for result in wish.results}
        if given.keys() != {call.id for call in calls}:
            continue
        for call in calls:
            message = Message(role="tool", content=given[call.id], call_id=call.id, name=call.name)
            chat.sides[side].append(message)
        return [side]
    raise WebError("results: expected one for each tool call that is open", status=422)
