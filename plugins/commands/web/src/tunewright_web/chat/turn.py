"""Replies that are being generated. They go on when the browser is closed."""

import contextlib
import json
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunewright_web.chat.conversation import Call, Chat, Message, wire_messages
from tunewright_web.chat.engine import Engine, Reading
from tunewright_web.chat.markdown import rendered
from tunewright_web.errors import WebError, web_error

if TYPE_CHECKING:
    from tunewright_web.chat.chats import Chats

__all__ = ["Event", "Turn"]

_LOADING = 0.5  # seconds between two news on a model that loads
_HTML = 0.15  # seconds between two renderings of a reply that arrives


@dataclass(frozen=True, slots=True)
class Event:
    """name: loading, delta, html, done, error, end. data: JSON."""

    name: str
    data: dict[str, Any]

    def encoded(self) -> bytes:
        return f"event: {self.name}\ndata: {json.dumps(self.data, ensure_ascii=False)}\n\n".encode()


class Turn:
    """Replies of all sides of a chat to its last message, each generated in a thread."""

    def __init__(self, chats: "Chats", chat: Chat, sides: list[int]) -> None:
        self.chat, self.sides = chat, sides
        self.events: list[Event] = []
        self.finished = False
        self._chats, self._lock = chats, threading.Lock()
        self._replies = [_Reply(self, side) for side in sides]
        self._left = len(sides)

    def start(self) -> None:
        for each in self._replies:
            threading.Thread(target=each.run, name="tunewright-reply", daemon=True).start()

    def stop(self) -> None:
        """Have all replies end where they are; what has come is kept."""
        for each in self._replies:
            each.stop()

    def put(self, name: str, **data: Any) -> None:
        with self._lock:
            self.events.append(Event(name, data))

    def engine(self, side: int) -> Engine:
        """The engine of a side, started if need be. Raises WebError."""
        return self._chats.engine(self.chat.models[side], start=True)

    def media_url(self, media: Any) -> str:
        return self._chats.store.media_url(self.chat.id, media)

    def keep(self, side: int, message: Message | None) -> None:
        """Put a reply into the conversation."""
        with self._lock:
            if message is not None:
                self.chat.sides[side].append(message)
            self._left -= 1
            is_last = not self._left
            self._chats.store.save(self.chat)
        if is_last:
            self.put("end", id=self.chat.id)
            self.finished = True


@dataclass
class _Reply:
    """The reply of one side."""

    turn: Turn
    side: int
    message: Message = field(default_factory=lambda: Message(role="assistant"))
    _reading: Reading | None = None
    _stopped: bool = False
    _shown: float = 0.0  # when HTML was sent last

    def stop(self) -> None:
        self._stopped = True
        if self._reading is not None:
            self._reading.end()

    def run(self) -> None:
        began = time.monotonic()
        try:
            engine = self._loaded()
            began = time.monotonic()
            if engine is not None:
                self._read(engine)
            self.message.finish = "stopped" if self._stopped else self.message.finish or "stop"
        except Exception as error:
            found = web_error(error)
            self.message.finish, self.message.error = "error", found.error
            self.turn.put("error", side=self.side, error=found.error, hint=found.hint)
        self.message.seconds = round(time.monotonic() - began, 2)
        message = self.message
        has_some = message.content or message.reasoning or message.calls or message.error
        self._show(at_end=True)
        facts = {"finish": message.finish, "tokens": message.tokens, "seconds": message.seconds}
        calls = [call.model_dump() for call in message.calls]
        self.turn.put("done", side=self.side, content=message.content, calls=calls, **facts)
        self.turn.keep(self.side, message if has_some or not self._stopped else None)

    def _loaded(self) -> Engine | None:
        """The engine with its model; None: stopped meanwhile. Raises WebError."""
        engine = self.turn.engine(self.side)
        while not self._stopped:
            state = engine.wait(_LOADING)
            if state == "ready":
                return engine
            if state != "loading":
                raise WebError(engine.line or "the model's process has ended", status=502)
            data = {"seconds": round(engine.seconds), "line": engine.line}
            self.turn.put("loading", side=self.side, **data)
        return None

    def _read(self, engine: Engine) -> None:
        chat = self.turn.chat
        body = {
            "messages": wire_messages(chat.turn(self.side), chat.system, self.turn.media_url),
            "stream": True,
            "stream_options": {"include_usage": True},
            **chat.sampling.wire(),
        }
        if chat.tools:
            body["tools"] = chat.tools
        engine.answering += 1
        try:
            self._reading = engine.stream("/v1/chat/completions", body)
            if self._stopped:
                self._reading.end()
            for chunk in self._reading.chunks():
                self._take(chunk)
        finally:
            engine.answering -= 1
            engine.used = time.monotonic()

    def _take(self, chunk: dict[str, Any]) -> None:
        if usage := chunk.get("usage"):
            self.message.tokens = usage["completion_tokens"]
        for choice in chunk["choices"]:
            delta, message = choice["delta"], self.message
            text, reasoning = delta.get("content") or "", delta.get("reasoning") or ""
            # some templates leave leading white space to the model
            message.content += text if message.content else text.lstrip()
            message.reasoning += reasoning
            for call in delta.get("tool_calls", ()):
                function = call["function"]
                message.calls.append(
                    Call(id=call["id"], name=function["name"], arguments=function["arguments"])
                )
            message.finish = choice["finish_reason"] or message.finish
            if text or reasoning:
                self.turn.put("delta", side=self.side, text=text, reasoning=reasoning)
        self._show()

    def _show(self, *, at_end: bool = False) -> None:
        """The reply so far as HTML: rendering it at every token would take too long."""
        if at_end or time.monotonic() - self._shown > _HTML:
            with contextlib.suppress(RecursionError):
                html, thinking = rendered(self.message.content), self.message.reasoning
                self.turn.put("html", side=self.side, html=html, reasoning=thinking)
            self._shown = time.monotonic()
