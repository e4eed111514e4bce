"""Folder of the conversations: .tunewright/chats/ID/, with chat.json and files of its messages."""

import base64
import hashlib
import re
import secrets
import shutil
import time
from pathlib import Path

from pydantic import ValidationError

from tunewright_web.chat.conversation import Chat, Media, Sampling
from tunewright_web.chat.targets import ChatModel, short_name
from tunewright_web.errors import WebError
from tunewright_web.workspace import write_file

__all__ = ["MEDIA_BYTES", "MEDIA_TYPES", "Store"]

MEDIA_BYTES = 16 * 2**20  # of one file
#: content type → kind and ending of the file. No SVG: it can hold scripts
MEDIA_TYPES = {
    "image/png": ("image", "png"),
    "image/jpeg": ("image", "jpeg"),
    "image/webp": ("image", "webp"),
    "image/gif": ("image", "gif"),
    "audio/wav": ("audio", "wav"),
    "audio/mpeg": ("audio", "mp3"),
    "audio/flac": ("audio", "flac"),
    "audio/ogg": ("audio", "ogg"),
    "video/mp4": ("video", "mp4"),
    "video/webm": ("video", "webm"),
}
#: other names that browsers give them
_ALSO = {
    "audio/x-wav": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "audio/mp3": "audio/mpeg",
    "audio/x-flac": "audio/flac",
}
_ENDINGS = {ending: kind for kind, (_, ending) in MEDIA_TYPES.items()}
_ID = re.compile(r"[0-9a-f]{16}")
_NAME = re.compile(r"[0-9a-f]{32}\.([a-z0-9]{3,4})")
_MOST = 1000  # chats
_TITLE = 60  # characters


class Store:
    """Conversations on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def create(self, models: list[ChatModel], system: str, tools: list, sampling: Sampling) -> Chat:
        """A new conversation, written. Raises WebError."""
        if sum(1 for _ in self.folder.iterdir()) >= _MOST:
            problem = f"there are {_MOST} chats, as many as are kept"
            raise WebError(problem, "delete some", status=409)
        now = time.time()
        made = Chat(
            id=secrets.token_hex(8),
            title=" | ".join(map(short_name, models)),
            created=now,
            updated=now,
            models=models,
            system=system,
            tools=tools,
            sampling=sampling,
            sides=[[] for _ in models],
        )
        (self.folder / made.id).mkdir()
        self.save(made)
        return made

    def save(self, chat: Chat) -> None:
        chat.updated = time.time()
        first = next((m.content for m in chat.sides[0] if m.role == "user" and m.content), "")
        if first:
            line = " ".join(first[: 10 * _TITLE].split())
            chat.title = line if len(line) <= _TITLE else f"{line[: _TITLE - 1]}…"
        if (self.folder / chat.id).is_dir():  # it may have been deleted meanwhile
            write_file(self.folder / chat.id / "chat.json", chat.model_dump_json(indent=1))

    def load(self, name: str) -> Chat:
        """Raises WebError."""
        folder = self._of(name)
        try:
            return Chat.model_validate_json((folder / "chat.json").read_text("utf-8"))
        except (OSError, ValueError, ValidationError) as error:
            raise WebError(f"the chat {name} is damaged", "delete it", status=409) from error

    def all(self) -> list[Chat]:
        """All that can be read, the newest first."""
        found = []
        for folder in self.folder.iterdir():
            if _ID.fullmatch(folder.name):
                try:
                    found.append(self.load(folder.name))
                except WebError:
                    continue  # it can be deleted by hand
        return sorted(found, key=lambda chat: -chat.updated)

    def delete(self, name: str) -> None:
        """Raises WebError."""
        shutil.rmtree(self._of(name))

    def _of(self, name: str) -> Path:
        folder = self.folder / name
        if not _ID.fullmatch(name) or not folder.is_dir():
            raise WebError(f"there is no chat {name!r:.40}", status=404)
        return folder

    # ---- images, audio, videos -------------------------------------------------------------------

    def add_media(self, name: str, content_type: str, data: bytes) -> Media:
        """Keep a file. Raises WebError."""
        kind = content_type.partition(";")[0].strip().lower()
        kind = _ALSO.get(kind, kind)
        if kind not in MEDIA_TYPES:
            hint = f"expected {', '.join(MEDIA_TYPES)}"
            raise WebError(f"files of type {kind!r:.60} are not taken", hint, status=415)
        if not data:
            raise WebError("the file is empty", status=422)
        group, ending = MEDIA_TYPES[kind]
        file = f"{hashlib.blake2b(data, digest_size=16).hexdigest()}.{ending}"
        (self._of(name) / file).write_bytes(data)
        return Media(kind=group, name=file)  # type: ignore[arg-type]

    def media(self, name: str, file: str) -> tuple[Path, str]:
        """Path and content type. Raises WebError."""
        match = _NAME.fullmatch(file)
        path = self._of(name) / file
        if not match or match[1] not in _ENDINGS or not path.is_file():
            raise WebError(f"this chat has no file {file!r:.60}", status=404)
        return path, _ENDINGS[match[1]]

    def media_url(self, name: str, media: Media) -> str:
        """data: URL of a file."""
        path, kind = self.media(name, media.name)
        return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
