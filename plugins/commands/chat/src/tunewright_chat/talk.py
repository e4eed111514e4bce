"""A chat with one model, or with two side by side."""

from collections.abc import Iterator
from pathlib import Path

from tunewright import RecipeError, RunError
from tunewright.inference import Feature
from tunewright.types import MediaPart, Part, TextPart
from tunewright_chat.session import Reply, Session
from tunewright_chat.settings import Settings

_ROUNDS = 20  # of calls after one message
KINDS = ("image", "video", "audio")
#: kind of a medium → what engines call it
MEDIA: dict[str, Feature] = {"image": "images", "video": "videos", "audio": "audio"}


class Talk:
    """The sides of a chat, which get the same messages. Holds media for the next message."""

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
        return [reply for session in self.sessions if (reply := session.ask(content))]

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
        for call in self.first.open_calls:
            results.append(code.result(call))
            if reply := self.first.ask(results[-1]):
                return results, [reply]
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
