"""Files of a row's media: found below the media folder, or stored.

A prepared row names a file by its path below the media folder of its source, or by the digest of a
stored one, so that rows can be moved with their media.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from tunewright import RowError
from tunewright.types import (
    Conversation,
    Labelled,
    MediaPart,
    Message,
    Part,
    Preference,
    Prompt,
    Ranked,
    RenderedText,
    Retrieval,
    Row,
    Stepwise,
    Text,
    Unpaired,
)
from tunewright_dataset_chat import media_store
from tunewright_dataset_chat.media_store import PREFIX
from tunewright_hf.media.data_urls import of_url

KINDS = ("image", "video", "audio")
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Folders:
    """Folders of a source's media. root: of paths; None: paths are refused. store: of media that
    come as bytes; None: these stay with their rows, and nothing is written."""

    root: Path | None = None
    store: Path | None = None

    def __post_init__(self) -> None:
        for field in ("root", "store"):  # real paths are compared
            if (folder := getattr(self, field)) is not None:
                object.__setattr__(self, field, Path(os.path.realpath(folder)))


NO_FOLDERS = Folders()


def locate(row: Row, folders: Folders) -> None:
    """Set the full path of every image, video and audio of a row: its file below the media folder,
    or where its bytes are stored.

    No medium is opened. Raises RowError if a file does not exist, links out of the folder, or is
    not a regular file, which might never end.
    """
    store = folders.store
    for part in parts(row):
        if store and _is_below(part.path, store):
            continue  # of an earlier row of the same record
        if part.data is None and not part.path.startswith("data:"):
            part.path = str(below(part.path, folders.root, part.kind))
        elif store:
            data = of_url(part.path, part.kind) if part.data is None else part.data
            part.path, part.data = str(media_store.put(data, store)), None


def written(found: Iterable[MediaPart], folders: Folders) -> list[dict[str, str]]:
    """Column `media` of a row whose media were located, as it is stored."""
    return [{"kind": part.kind, "path": _written(part.path, folders)} for part in found]


def _written(path: str, folders: Folders) -> str:
    if folders.store and _is_below(path, folders.store):
        return PREFIX + Path(path).name
    assert folders.root
    return Path(path).relative_to(folders.root).as_posix()


def _is_below(path: str, folder: Path) -> bool:
    return path.startswith(f"{folder}{os.sep}")


def check_written(kind: str, path: str, folders: Folders) -> None:
    """Check a medium of a row that was prepared elsewhere. Raises RowError as `locate` does."""
    if not path.startswith(PREFIX):
        below(path, folders.root, kind)
        return
    digest = path.removeprefix(PREFIX)
    if not _DIGEST.fullmatch(digest):
        raise RowError(f"{kind} {path[:80]!r} names no stored file")
    below(f"{digest[:2]}/{digest}", folders.store, kind)


def full_path(path: str, folders: Folders) -> str:
    """Full path of a medium of a prepared row."""
    if path.startswith(PREFIX):
        assert folders.store
        return str(media_store.of_digest(path.removeprefix(PREFIX), folders.store))
    return f"{folders.root}{os.sep}{path}"


def name(part: MediaPart) -> str:
    """The medium in an error."""
    written = "data" if part.data is not None or part.path.startswith("data:") else part.path
    return f"{part.kind} {Path(written).name[:40]!r}"


def parts(row: Row) -> Iterator[MediaPart]:
    """Yield the media parts of a row, in order."""
    contents = [row.text] if isinstance(row, Text) else (each.content for each in messages(row))
    return of_contents(contents)


def of_messages(found: Iterable[Message]) -> list[MediaPart]:
    """Media parts of messages, in order."""
    return list(of_contents(message.content for message in found))


def of_contents(contents: Iterable[str | list[Part]]) -> Iterator[MediaPart]:
    for content in contents:
        if not isinstance(content, str):
            yield from (part for part in content if isinstance(part, MediaPart))


def messages(row: Row) -> Iterator[Message]:
    if isinstance(row, Text | RenderedText | Retrieval | Labelled):
        return iter(())
    if isinstance(row, Preference):
        return chain(row.prompt, row.chosen, row.rejected)
    if isinstance(row, Unpaired):
        return chain(row.prompt, row.completion)
    if isinstance(row, Ranked):
        return chain(row.prompt, *row.answers)
    if isinstance(row, Stepwise):
        return iter(row.prompt)
    assert isinstance(row, Conversation | Prompt)
    return iter(row.messages)


def below(path: str, root: Path | None, kind: str) -> Path:
    """Full path of a file below the folder, whose own path is a real one. Raises RowError as
    `locate` does."""
    shown = f"{kind} {path[:80]!r}"
    if root is None:
        raise RowError(
            f"has {shown}, and no folder for media is known", hint="name one with `media_root:`"
        )
    try:
        full = Path(os.path.realpath(root / path))
        if not full.is_relative_to(root):
            raise RowError(f"{shown} leads out of the media folder {root}")
        mode = full.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: not a valid path
        raise RowError(f"{shown} is not there", hint=f"paths start from {root}") from error
    if not stat.S_ISREG(mode):
        raise RowError(f"{shown} is not a regular file")
    return full
