"""Files of runs and jobs: listed by us, and read in parts."""

import os
import re
from pathlib import Path
from typing import Any

from tunewright_web.errors import WebError

__all__ = ["listed", "log_part", "part_of"]

_PART = 64 * 1024  # bytes of a log that are sent at once
_CURSOR = re.compile(r"[0-9a-f]{1,14}")
_MOST = 2_000  # files of a listing
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


def log_part(path: Path, after: str) -> dict[str, Any]:
    """What follows a cursor; without one, the end of the file. `skipped`: bytes left out before
    it. Raises WebError."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start, skipped = _start(after, size)
            file.seek(start)
            data = file.read(_PART)
    except OSError:
        if after not in ("", "0"):
            raise WebError(f"after: {after!r:.40} is no cursor") from None
        return {"text": "", "cursor": "0", "skipped": 0, "more": False}
    whole = len(data) if start + len(data) < size else _complete(data)
    text = data[:whole].decode("utf-8", "replace")
    return {
        "text": _plain(text),
        "cursor": f"{start + whole:x}",
        "skipped": skipped,
        "more": start + whole < size and whole > 0,
    }


def _start(after: str, size: int) -> tuple[int, int]:
    if not after:
        start = max(0, size - _PART)
        return start, start
    if not _CURSOR.fullmatch(after):
        raise WebError(f"after: {after!r:.40} is no cursor", "send one that was given")
    start = int(after, 16)
    if start > size:  # the file was begun anew
        return 0, 0
    if size - start > 16 * _PART:  # a page that was away: it gets the end
        return size - _PART, size - _PART - start
    return start, 0


def _plain(text: str) -> str:
    """The text without colours, and without the earlier states of progress bars."""
    lines = _ESCAPES.sub("", text).split("\n")
    return "\n".join(line.removesuffix("\r").rpartition("\r")[2] for line in lines)


def _complete(data: bytes) -> int:
    """Length without the beginning of a character that is not complete."""
    for back in range(1, min(4, len(data) + 1)):
        if data[-back] >= 0xC0:
            needed = 2 if data[-back] < 0xE0 else 3 if data[-back] < 0xF0 else 4
            return len(data) - back if back < needed else len(data)
        if data[-back] < 0x80:
            break
    return len(data)


def listed(folder: Path) -> list[tuple[str, int]]:
    """Regular files below a folder with their sizes, by name; hidden ones and links are left
    out."""
    found: list[tuple[str, int]] = []
    for base, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[:1] != ".")
        for name in sorted(files):
            path = Path(base, name)
            if name[:1] != "." and not path.is_symlink() and path.is_file():
                found.append((path.relative_to(folder).as_posix(), path.stat().st_size))
        if len(found) >= _MOST:
            break
    return found


def part_of(folder: Path, name: str) -> Path:
    """A file of `listed`. Raises WebError for any other name."""
    if name not in {each for each, _ in listed(folder)}:
        raise WebError(f"there is no file {name!r:.200} in this run", status=404)
    return folder / name
