"""Where the media of a row are on this machine."""

import os
import stat
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from tunewright import RowError
from tunewright.types import (
    Conversation,
    MediaPart,
    Message,
    Preference,
    Prompt,
    RenderedText,
    Row,
    Text,
    Unpaired,
)


def locate(row: Row, root: Path | None) -> None:
    """Give every image, video and audio of a row its full path, where there is a file below the
    root.

    Nothing is opened. Raises RowError where there is no such file, where links lead out of the
    root, and where it is no regular file, which might never end.
    """
    for part in parts(row):
        if not part.path.startswith("data:"):
            part.path = str(_below(part.path, root, part.kind))


def parts(row: Row) -> Iterator[MediaPart]:
    """The media of a row, in order."""
    for message in messages(row):
        if not isinstance(message.content, str):
            yield from (part for part in message.content if isinstance(part, MediaPart))


def messages(row: Row) -> Iterator[Message]:
    if isinstance(row, Text | RenderedText):
        return iter(())
    if isinstance(row, Preference):
        return chain(row.prompt, row.chosen, row.rejected)
    if isinstance(row, Unpaired):
        return chain(row.prompt, row.completion)
    assert isinstance(row, Conversation | Prompt)
    return iter(row.messages)


def _below(path: str, root: Path | None, kind: str) -> Path:
    shown = f"{kind} {path[:80]!r}"
    if root is None:
        raise RowError(
            f"has {shown}, and no folder for media is known", hint="name one with `media_root:`"
        )
    folder = Path(os.path.realpath(root))
    try:
        full = Path(os.path.realpath(folder / path))
        if not full.is_relative_to(folder):
            raise RowError(f"{shown} leads out of the media folder {root}")
        mode = full.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: what can be no path
        raise RowError(f"{shown} is not there", hint=f"paths start from {folder}") from error
    if not stat.S_ISREG(mode):
        raise RowError(f"{shown} is not a regular file")
    return full
