"""Results as JSON lines, one a row, that survive a killed process.

While rows are added, they stand in `FILE.part`, whose first line says with which settings they were
made. `finish` writes FILE, in the order of the rows, and removes it.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Self

from filelock import FileLock, Timeout

from tunewright import RecipeError, RunError
from tunewright.folder import finite

__all__ = ["ResultLines", "check_settings"]


def check_settings(old: dict[str, Any], new: dict[str, Any], place: Path, hint: str) -> None:
    """Raise RecipeError, which names the field, where something was begun with other settings."""
    for name in dict.fromkeys((*old, *new)):
        was, now = old.get(name), new.get(name)
        if was == now:
            continue
        problem = f"it was begun with {name} {was!r:.60}, and this is {now!r:.60}"
        if isinstance(was, str) and isinstance(now, str) and len(was) == len(now) == 64:
            problem = f"{name} is not what it was when this was begun"  # digests
        raise RecipeError(problem, place=str(place), hint=hint)


class ResultLines:
    """Rows of results that are written to a file. `done` has the numbers of those written before.

    settings: JSON values on which the rows depend. Raises RecipeError where the file is complete,
    or was begun with other settings; RunError where it cannot be written, or another process
    writes it.
    """

    def __init__(self, path: Path, settings: dict[str, Any], *, overwrite: bool = False) -> None:
        self.path, self._part = path, path.with_name(f"{path.name}.part")
        self._places: dict[int, int] = {}  # number of a row → place of its line in the part
        settings = json.loads(json.dumps(settings))
        if path.exists() and not overwrite:
            hint = "name another file, or --overwrite"
            raise RecipeError("exists already", place=str(path), hint=hint)
        self._lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout as error:
            raise RunError("another process is writing it", place=str(path)) from error
        except OSError as error:
            raise RunError(f"cannot be written: {error.strerror}", place=str(path)) from error
        try:
            self._file = self._opened(settings, overwrite)
        except BaseException:
            self._unlock()
            raise

    def _opened(self, settings: dict[str, Any], overwrite: bool) -> BinaryIO:
        if overwrite:
            self._part.unlink(missing_ok=True)
        try:
            file = self._part.open("r+b" if self._part.exists() else "w+b")
        except OSError as error:
            raise RunError(f"cannot be written: {error.strerror}", place=str(self.path)) from error
        try:
            end = self._read(file, settings)
        except BaseException:
            file.close()
            raise
        file.truncate(end)  # the line of a row that was being written when the process was killed
        file.seek(end)
        if not end:
            self._write(file, {"settings": settings})
        return file

    def _read(self, file: BinaryIO, settings: dict[str, Any]) -> int:
        """Find the rows that are there. Returns the place after the last whole line."""
        end = 0
        for number, line in enumerate(iter(file.readline, b"")):
            if not line.endswith(b"\n"):
                break
            try:
                value = json.loads(line)
                if number:
                    self._places[value["row"]] = end
                else:
                    hint = "go on with the same ones, name another output, or --overwrite"
                    check_settings(value["settings"], settings, self._part, hint)
            except (ValueError, KeyError, TypeError) as error:
                problem = f"line {number + 1} is damaged"
                raise RunError(problem, place=str(self._part), hint="--overwrite") from error
            end += len(line)
        return end

    @property
    def done(self) -> frozenset[int]:
        return frozenset(self._places)

    def add(self, row: dict[str, Any]) -> None:
        """Write a row; its number is `row`. Raises RunError, as on a full disk."""
        place = self._file.tell()
        self._write(self._file, row)
        self._places[row["row"]] = place

    def _write(self, file: BinaryIO, value: dict[str, Any]) -> None:
        line = json.dumps(finite(value), ensure_ascii=False, default=str)
        try:
            file.write(line.encode("utf-8", "replace") + b"\n")
            file.flush()
        except OSError as error:
            raise RunError(f"cannot be written: {error.strerror}", place=str(self._part)) from error

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows that are there, in the order of their numbers."""
        end = self._file.tell()
        for number in sorted(self._places):
            self._file.seek(self._places[number])
            yield json.loads(self._file.readline())
        self._file.seek(end)

    def finish(self) -> None:
        """Write the file. Raises RunError."""
        temporary = self.path.with_name(f".{self.path.name}.new")
        try:
            with temporary.open("wb") as file:
                for number in sorted(self._places):
                    self._file.seek(self._places[number])
                    file.write(self._file.readline())
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise RunError(f"cannot be written: {error.strerror}", place=str(self.path)) from error
        self._file.close()
        self._part.unlink()

    def _unlock(self) -> None:
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._unlock()
