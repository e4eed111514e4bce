"""A conversation with one model: its messages, and the replies that arrive."""

import json
import queue
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunewright import RunError
from tunewright.inference import GenerateRequest, InferenceEngine, Piece, Ticket
from tunewright.types import Conversation, Message, Part, ToolCall
from tunewright_chat.settings import Settings
from tunewright_hf.templates.info import TemplateInfo
from tunewright_hf.templates.reply_stream import ReplyStream


class Session:
    """Messages so far, and the engine that replies. info: of the template."""

    def __init__(
        self, name: str, engine: InferenceEngine, info: TemplateInfo, settings: Settings
    ) -> None:
        self.name, self.engine, self.info, self.settings = name, engine, info, settings
        self.about = ""  # for the user, such as the template's name
        self.model: str | None = None  # one of engine.models; None: the first
        self.messages: list[Message] = []
        self.last: Reply | None = None

    def with_adapter(self, name: str) -> "Session":
        """A session of its own with an adapter of the same engine."""
        made = Session(name, self.engine, self.info, self.settings)
        made.model, made.about = name, f"adapter of {self.name}"
        return made

    @property
    def open_calls(self) -> list[ToolCall]:
        """Tool calls of the last reply that have no result yet."""
        for results, message in enumerate(reversed(self.messages)):
            if message.role != "tool":
                return message.tool_calls[results:]
        return []

    def ask(self, content: str | list[Part]) -> "Reply | None":
        """The reply to a message, or to the result of the first open tool call; None: the model
        waits for the results of further calls. A message without a reply is forgotten."""
        if not (calls := self.open_calls):
            return Reply(self, [*self.messages, Message("user", content)])
        call = calls[0]
        result = Message("tool", content, tool_call_id=call.id, name=call.name)
        turn = [*self.messages, result]
        if len(calls) == 1:
            return Reply(self, turn)
        self.messages = turn
        return None

    def go_on(self) -> "Reply | None":
        """The reply to results that the messages end with; None: they end with something else."""
        is_due = self.messages and self.messages[-1].role == "tool" and not self.open_calls
        return Reply(self, self.messages) if is_due else None

    def again(self) -> "Reply | None":
        """Another reply to the last message; None: there is none."""
        turn = [*self.messages]
        while turn and turn[-1].role == "assistant":
            turn.pop()
        return Reply(self, turn) if turn else None

    def undo(self) -> str | list[Part] | None:
        """Take back the last message of the user and all that followed. Returns its content; None:
        there is none."""
        for place in range(len(self.messages) - 1, -1, -1):
            if self.messages[place].role == "user":
                content = self.messages[place].content
                del self.messages[place:]
                return content
        return None

    def request(self, turn: Sequence[Message]) -> GenerateRequest:
        settings = self.settings
        system = [] if settings.system is None else [Message("system", settings.system)]
        return GenerateRequest(
            Conversation([*system, *turn], settings.tools, dict(settings.variables)),
            model=self.model,
            **settings.values,
        )


@dataclass
class Reply:
    """A reply that arrives. turn: the messages that it answers."""

    session: Session
    turn: list[Message]
    raw: str = ""
    text: str = ""
    reasoning: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    finish_reason: str | None = None
    prompt: str = ""  # as the model sees it
    _stream: ReplyStream = field(init=False, repr=False)

    def start(self, pieces: "queue.SimpleQueue[tuple[Reply, Piece]]") -> Ticket:
        """Submit the request. Raises RowError and RunError."""
        session, request = self.session, self.session.request(self.turn)
        self.prompt = session.engine.decode(session.engine.encode(request))
        thinking = session.info.thinking
        opened = thinking is not None and self.prompt.rstrip().endswith(thinking[0])
        self._stream = ReplyStream(session.info, session.settings.tools, in_thinking=opened)
        return session.engine.submit(request, lambda piece: pieces.put((self, piece)))

    def push(self, piece: Piece) -> None:
        self.raw += piece.text
        self.finish_reason = piece.finish_reason
        self._take(piece.text)

    def finish(self) -> None:
        """Parse the text that was held back."""
        self._take(None)

    def keep(self) -> None:
        """Put the message and what there is of its reply into the conversation."""
        text = self.text if self.calls else self.text.strip()
        message = Message("assistant", text, self.reasoning or None, self.calls)
        self.session.messages, self.session.last = [*self.turn, message], self

    def _take(self, text: str | None) -> None:
        for event in self._stream.finish() if text is None else self._stream.push(text):
            if event.call is not None:
                self.calls.append(event.call)
            elif event.kind == "reasoning":
                self.reasoning += event.text
            else:
                self.text += event.text if self.text else event.text.lstrip()


def arriving(replies: Sequence[Reply]) -> Generator[tuple[Reply, str]]:
    """Yield the pieces of text of all replies as they come, each already pushed.

    Closing the iterator, or Ctrl-C, cancels them: what has come stays in the conversation. Raises
    what submit raises, and RunError if an engine fails.
    """
    pieces: queue.SimpleQueue[tuple[Reply, Piece]] = queue.SimpleQueue()
    tickets, started = [], []
    try:
        for reply in replies:
            tickets.append(reply.start(pieces))
            started.append(reply)
        left = len(replies)
        while left:
            reply, piece = pieces.get()
            if piece.finish_reason == "error":
                raise RunError(f"the engine failed: {piece.error}")
            left -= piece.finish_reason is not None
            reply.push(piece)
            yield reply, piece.text
    finally:
        for ticket in tickets:
            ticket.cancel()
        for reply in started:
            reply.finish()
        if any(reply.raw for reply in started):  # the sides of a chat stay in step
            for reply in started:
                reply.keep()


def described(call: ToolCall) -> str:
    """A call as `add(a=1, b="x")`."""
    arguments: dict[str, Any] = call.arguments
    given = [f"{name}={json.dumps(each, ensure_ascii=False)}" for name, each in arguments.items()]
    return f"{call.name}({', '.join(given)})"
