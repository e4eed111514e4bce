"""Prepared rows on disk: a folder for each source, named by its key, with rows.arrow and
manifest.json.

A folder appears whole or not at all. Arrow files and JSON only, no pickle; rows are read where they
lie, not copied into memory.
"""

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

FORMAT = 1  # of these folders; another one is not read
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
    """The part in this folder; None where there is none that is whole."""
    try:
        facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        whole = facts["format"] == FORMAT and (folder / ROWS).stat().st_size == facts["bytes"]
    except (OSError, ValueError, KeyError):
        return None
    return CachedShard(folder, facts) if whole else None


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
        text = json.dumps({"format": FORMAT, "rows": rows, "bytes": size, **facts}, indent=1)
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
