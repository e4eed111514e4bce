"""Prepared rows on disk: a folder for each source, named by its key, with rows.arrow and
manifest.json.

A folder appears whole or not at all. Arrow files and JSON only, no pickle; rows are read where they
lie, not copied into memory.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets.table import MemoryMappedTable
from filelock import FileLock

from tunewright import RunError

FORMAT = 2  # of these folders; another one is not read
MANIFEST, ROWS = "manifest.json", "rows.arrow"


@dataclass
class CachedShard:
    """The rows of one source. facts: what its manifest says."""

    folder: Path
    facts: dict[str, Any]

    @property
    def rows(self) -> int:
        rows: int = self.facts["rows"]
        return rows

    def table(self) -> MemoryMappedTable:
        return MemoryMappedTable.from_file(str(self.folder / ROWS))


def read(folder: Path) -> CachedShard | None:
    """The part in this folder; None where there is none that is whole: its rows must have the
    sha256 that the manifest names."""
    try:
        facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if not _has_shape(facts) or (folder / ROWS).stat().st_size != facts["bytes"]:
            return None
        with (folder / ROWS).open("rb") as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest() == facts["sha256"]
    except (OSError, ValueError, RecursionError):
        return None
    return CachedShard(folder, facts) if whole else None


_SHAPE: dict[str, type] = {
    "format": int,
    "rows": int,
    "bytes": int,
    "sha256": str,
    "identity": str,
    "entry": str,
    "settings": dict,
    "tally": dict,
    "weighted": bool,
}


def _has_shape(facts: Any) -> bool:
    """Whether a manifest is as `write` makes them."""
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        return False
    if any(type(facts.get(name)) is not kind for name, kind in _SHAPE.items()):
        return False
    tally = facts["tally"]
    return (
        type(tally.get("records")) is int
        and set(tally) == {"records", "dropped", "changed", "bad", "notes", "unread"}  # of Counts
        and isinstance(tally["unread"], dict)
        and all(_is_counter(tally[name]) for name in ("dropped", "changed"))
        and all(_is_texts(tally[name]) for name in ("bad", "notes"))
    )


def _is_counter(value: Any) -> bool:
    return isinstance(value, dict) and all(type(count) is int for count in value.values())


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time makes this part; the others wait, and then find it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f"{folder.name}.lock"))
        lock.acquire()
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def write(
    folder: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema | None, facts: dict[str, Any]
) -> CachedShard:
    """Make the part: rows batch by batch, the manifest last, then the folder is renamed.

    facts: filled while the batches are made. schema: None takes that of the first batch. Raises
    RunError where the disk cannot take it; whatever `batches` raises leaves nothing behind.
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
        shutil.rmtree(folder, ignore_errors=True)  # one that is not whole
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
