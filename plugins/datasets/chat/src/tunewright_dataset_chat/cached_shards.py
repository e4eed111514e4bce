"""Prepared rows on disk: one folder per source, named by its key, with rows.arrow and
manifest.json.

Folders are written atomically. Arrow and JSON only, no pickle; rows are memory-mapped.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets.table import MemoryMappedTable
from filelock import FileLock, Timeout

from tunewright import RunError
from tunewright_dataset_chat.columns import LINE, ORDER
from tunewright_dataset_chat.media import Folders

FORMAT = 3  # version of the folder format; others are not read
MANIFEST, ROWS = "manifest.json", "rows.arrow"


@dataclass
class CachedShard:
    """Rows of one source. facts: the content of the manifest. media: folders of its media."""

    folder: Path
    facts: dict[str, Any]
    media: Folders = field(default_factory=Folders)

    @property
    def rows(self) -> int:
        rows: int = self.facts["rows"]
        return rows

    def table(self) -> MemoryMappedTable:
        return MemoryMappedTable.from_file(str(self.folder / ROWS))


def read(folder: Path) -> CachedShard | None:
    """Read the shard in this folder; None if there is no valid one: the rows must match the sha256
    in the manifest."""
    try:
        facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if not _has_shape(facts) or (folder / ROWS).stat().st_size != facts["bytes"]:
            return None
        with (folder / ROWS).open("rb") as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest() == facts["sha256"]
    except (OSError, ValueError, RecursionError):
        return None
    return CachedShard(folder, facts) if whole else None


def numbers(found: list[CachedShard]) -> np.ndarray:
    """Number of each row, by which it is ordered."""
    return np.concatenate([part.table().column(ORDER).to_numpy() for part in found if part.rows])


def records(found: list[CachedShard]) -> np.ndarray:
    """Record number of each row. A new record starts where the line changes or is unknown."""
    found_so_far, before = [], 0
    for part in found:
        if part.rows:
            # unknown: NaN, which differs from itself
            lines = part.table().column(LINE).to_numpy()
            found_so_far.append(before + np.cumsum(np.append(True, lines[1:] != lines[:-1])))
            before = found_so_far[-1][-1]
    return np.concatenate(found_so_far)


_SHAPE: dict[str, type] = {
    "format": int,
    "rows": int,
    "bytes": int,
    "sha256": str,
    "identity": str,
    "entry": str,
    "settings": dict,
    "tally": dict,
    "media": int,
    "weighted": bool,
}


def _has_shape(facts: Any) -> bool:
    """Whether a manifest has the structure that `write` gives it."""
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        return False
    if any(type(facts.get(name)) is not kind for name, kind in _SHAPE.items()):
        return False
    tally = facts["tally"]
    return (
        type(tally.get("records")) is int
        and set(tally)
        == {"records", "dropped", "changed", "bad", "notes", "unread"}  # the fields of Counts
        and isinstance(tally["unread"], dict)
        and all(_is_counter(tally[name]) for name in ("dropped", "changed"))
        and all(_is_texts(tally[name]) for name in ("bad", "notes"))
    )


def _is_counter(value: Any) -> bool:
    return isinstance(value, dict) and all(type(count) is int for count in value.values())


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


@contextmanager
def locked(folder: Path, check_stop: Callable[[], None], *, wait: bool = True) -> Iterator[bool]:
    """One process at a time makes this part; the others wait, and then find it. check_stop: called
    each second while it waits, raises Stopped. wait: otherwise False is given at once where another
    process makes it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        seconds = 1 if wait else 0
        lock = FileLock(folder.with_name(f"{folder.name}.lock"), timeout=seconds)
        while not lock.is_locked:
            try:
                lock.acquire()
            except Timeout:
                check_stop()
                if not wait:
                    break
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        yield lock.is_locked
    finally:
        lock.release()


def write(
    folder: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema | None, facts: dict[str, Any]
) -> CachedShard:
    """Write a shard: rows batch by batch, then the manifest, then the folder is renamed.

    facts: filled in while the batches are produced. schema: None takes that of the first batch.
    Raises RunError if the disk fails or is full; if `batches` raises, nothing is left behind.
    """
    temporary = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        with (temporary / ROWS).open("wb") as file:
            rows = _write_rows(file, batches, schema)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        with (temporary / ROWS).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        made = {"format": FORMAT, "rows": rows, "bytes": size, "sha256": sha256}
        text = json.dumps({**made, **facts}, indent=1)
        (temporary / MANIFEST).write_text(text, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # an incomplete one
        os.replace(temporary, folder)
    except OSError as error:
        raise _unwritable(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    found = read(folder)
    assert found is not None
    return found


def _write_rows(file: Any, batches: Iterable[pa.RecordBatch], schema: pa.Schema | None) -> int:
    rows = 0
    writer = pa.ipc.new_stream(file, schema) if schema else None
    for batch in batches:
        writer = writer or pa.ipc.new_stream(file, batch.schema)
        writer.write_batch(batch)
        rows += batch.num_rows
    if writer:
        writer.close()
    return rows


def _unwritable(folder: Path, error: OSError) -> RunError:
    hint = "make room, or name another folder with `dataset: {name: chat, cache: FOLDER}`"
    return RunError(
        f"prepared data cannot be written: {error.strerror or error}",
        place=str(folder.parent),
        hint=hint,
    )
