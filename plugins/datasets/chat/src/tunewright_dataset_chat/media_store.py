"""Media store: files named by their sha256, for media that come as bytes in the data.

Rows refer to it as `sha256:…`, so that it can be moved with them.
"""

import hashlib
import os
import tempfile
from pathlib import Path

from tunewright import RunError
from tunewright.types import DataRequest

PREFIX = "sha256:"


def folder(cache: Path, request: DataRequest) -> Path | None:
    """Folder of the store; None if the model takes no media, and nothing is stored."""
    return cache / "media" if request.loaded.processor is not None else None


def put(data: bytes, store: Path) -> Path:
    """Store a file, unless it is there. Several processes may store the same one. Raises RunError
    if it cannot be written."""
    digest = hashlib.sha256(data).hexdigest()
    path = of_digest(digest, store)
    try:
        if path.stat().st_size == len(data):
            return path
    except OSError:
        pass  # not there
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        number, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with os.fdopen(number, "wb") as file:
                file.write(data)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise RunError(
            f"media of the data cannot be stored: {error.strerror or error}",
            place=str(store),
            hint="make room, or name another folder with `dataset: {name: chat, cache: FOLDER}`",
        ) from error
    return path


def of_digest(digest: str, store: Path) -> Path:
    return store / digest[:2] / digest
