"""A chat with one model, or with two side by side."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tunewright import RecipeError, RunError
from tunewright.inference import Feature
from tunewright.types import MediaPart, Part, TextPart, ToolCall
from tunewright_chat.session import Reply, Session
from tunewright_chat.settings import Settings

_ROUNDS = 20  # of calls after one message
KINDS = ("image", "video", "audio")
#: kind of a medium → what engines call it
MEDIA: dict[str, Feature] = {"image": "images", "video": "videos", "audio": "audio"}


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A tool call that has no result yet. sides: those that made it; they get one result."""

    call: ToolCall
    sides: list[Session]
    title: str  # the tool's name, and the side's where only one made the call


class Talk:
    """The sides of a chat, which get the same messages. Holds media for the next message.

    A result of a tool call goes to the sides that made the call: what both ask is given once. Then
    a side waits until the other's calls have their results, too.
    """

    def __init__(self, sessions: list[Session], settings: Settings) -> None:
        self.sessions, self.settings = sessions, settings
        self.media: list[MediaPart] = []

    @property
    def first(self) -> Session:
        return self.sessions[0]

    def ask(self, text: str) -> list[Reply]:
        """The replies to a message; none if it has only media, which go with the next one, or if
        tools have further results to give. Lines such as `/image a.png` are put in their place.
        Raises RecipeError."""
        parts = [*self.media, *self._parts(text)]
        media = [part for part in parts if isinstance(part, MediaPart)]
        if len(media) == len(parts):
            self.media = media
            return []
        self.media = []
        content: str | list[Part] = parts if media else text
        if (asked := self.open_call) is not None:
            return self._give(asked, content)
        return [reply for session in self.sessions if (reply := session.ask(content))]

    @property
    def open_call(self) -> OpenCall | None:
        """The call whose result is to be given next; None: no side waits for one."""
        waiting = [session for session in self.sessions if session.open_calls]
        if not waiting:
            return None
        call = waiting[0].open_calls[0]
        same = [s for s in waiting if _same(s.open_calls[0], call)]
        is_of_all = len(same) == len(self.sessions)
        title = call.name if is_of_all else f"{same[0].name}: {call.name}"
        return OpenCall(call, same, title)

    def _give(self, asked: OpenCall, content: str | list[Part]) -> list[Reply]:
        """The replies to a result; none as long as results are missing, on whatever side."""
        replies = [
            session.ask(content) if session in asked.sides else session.go_on()
            for session in self.sessions
        ]
        due = [reply for reply in replies if reply is not None]
        answered = [reply.session for reply in due]
        if any(session.open_calls for session in self.sessions if session not in answered):
            for reply in due:
                reply.session.messages = reply.turn
            return []
        return due

    def rounds(self, replies: list[Reply]) -> Iterator[tuple[list[str], list[Reply]]]:
        """Yield replies to show; then, as long as the model calls tools whose code is known, their
        results and the reply to them. Raises RunError if it does not stop calling."""
        yield [], replies
        for _ in range(_ROUNDS):
            results, replies = self._run_calls()
            if not replies:
                return
            yield results, replies
        problem = f"the model called tools {_ROUNDS} times in a row"
        raise RunError(problem, hint="/undo takes it back")

    def _run_calls(self) -> tuple[list[str], list[Reply]]:
        results: list[str] = []
        if (code := self.settings.code) is None:
            return results, []
        while (asked := self.open_call) is not None:
            result = code.result(asked.call)
            results.append(f"{asked.title} gives {result}" if len(self.sessions) > 1 else result)
            if replies := self._give(asked, result):
                return results, replies
        return results, []

    def again(self) -> list[Reply]:
        """Other replies to the last message. Raises RecipeError if there is none."""
        found = [reply for session in self.sessions if (reply := session.again())]
        if not found:
            raise RecipeError("there is no message yet", place="/regenerate")
        return found

    def undo(self) -> str:
        """Take back the last message and its replies, and return the message as it was typed.
        Raises RecipeError if there is none."""
        contents = [session.undo() for session in self.sessions]
        if contents[0] is None:
            raise RecipeError("there is no message yet", place="/undo")
        if isinstance(contents[0], str):
            return contents[0]
        return "\n".join(
            part.text if isinstance(part, TextPart) else f"/{part.kind} {part.path}"
            for part in contents[0]
            if isinstance(part, TextPart | MediaPart)
        )

    def new(self) -> None:
        self.media = []
        for session in self.sessions:
            session.messages, session.last = [], None

    def _parts(self, text: str) -> list[Part]:
        parts: list[Part] = []
        lines: list[str] = []
        for line in text.split("\n"):
            word, _, path = line.partition(" ")
            if not word.startswith("/") or word[1:] not in KINDS:
                lines.append(line)
                continue
            if said := "\n".join(lines).strip():
                parts.append(TextPart(said))
            lines = []
            parts.append(self._medium(word, path.strip()))
        if said := "\n".join(lines).strip():
            parts.append(TextPart(said))
        return parts

    def _medium(self, word: str, path: str) -> MediaPart:
        kind = word[1:]
        for session in self.sessions:
            if MEDIA.get(kind) not in session.engine.features:
                raise RecipeError(f"the engine of {session.name} takes no {kind}", place=word)
        file = Path(path).expanduser()
        if not path or not file.is_file():
            raise RecipeError(f"there is no file {path!r}", place=word)
        return MediaPart(kind, str(file.resolve()))  # type: ignore[arg-type]


def _same(call: ToolCall, other: ToolCall) -> bool:
    return (call.name, call.arguments) == (other.name, other.arguments)
