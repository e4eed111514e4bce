"""Opening of media: regular files or bytes below a size limit, and errors that name the file."""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias

from tunewright import RowError
from tunewright_hf.media.shapes import MediaKind

__all__ = ["MAX_BYTES", "Source", "opened", "shown", "unreadable"]

#: path of a file, or what is in it
Source: TypeAlias = str | bytes

#: largest file of each kind, in bytes
MAX_BYTES: dict[str, int] = {"image": 64 << 20, "audio": 1 << 30, "video": 4 << 30}
_LONGEST = 60  # characters of a name, and of a library's error, in an error


@contextmanager
def opened(kind: MediaKind, path: Source) -> Iterator[BinaryIO]:
    """Open a file. Libraries get the open file, never its name: FFmpeg would take names such as
    `http://…` and `concat:…` for what to open.

    Raises RowError if it is missing, too large, or not a regular file, which might never end.
    """
    if isinstance(path, bytes):
        _check_size(kind, path, len(path))
        yield io.BytesIO(path)
        return
    try:
        # a pipe is opened without waiting for its other end
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _BINARY)
    except (OSError, ValueError) as error:
        raise unreadable(kind, path, error) from error
    with os.fdopen(number, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise RowError(f"{kind} {shown(path)} is not a regular file")
        _check_size(kind, path, found.st_size)
        yield file


def _check_size(kind: MediaKind, path: Source, size: int) -> None:
    if size > MAX_BYTES[kind]:
        limit = f"{MAX_BYTES[kind] >> 20:,} MiB"
        raise RowError(f"{kind} {shown(path)} has {size:,} bytes, more than {limit}")
    if not size:
        raise RowError(f"{kind} {shown(path)} is empty")


_BINARY = getattr(os, "O_BINARY", 0)  # of Windows


def shown(path: Source) -> str:
    """The file's name for an error."""
    if isinstance(path, bytes):
        return "that was sent"
    name = Path(path).name
    return repr(name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…")


def unreadable(kind: MediaKind, path: Source, error: Exception) -> RowError:
    """The error of a file that a library or the system cannot read."""
    said = getattr(error, "strerror", None) or str(error)
    if isinstance(path, str):
        said = str(said).replace(path, "it")
    said = " ".join(str(said).split())[:200] or type(error).__name__
    return RowError(f"{kind} {shown(path)} cannot be read: {said}")
