"""Columns `media` of prepared rows: full paths, and whether files have changed."""

import hashlib
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from tunewright import RecipeError
from tunewright_dataset_chat.columns import MEDIA, MEDIUM
from tunewright_dataset_chat.media import Folders, full_path
from tunewright_dataset_chat.media_store import PREFIX


def with_full_paths(table: pa.Table, folders: Folders) -> pa.Table:
    """The table with full paths in its column `media`, if it has one. Raises RecipeError if no
    media folder is known."""
    if MEDIA not in table.column_names:
        return table
    index = table.column_names.index(MEDIA)
    chunks = [_full(chunk, folders) for chunk in table.column(index).chunks]
    return table.set_column(index, MEDIA, pa.chunked_array(chunks, pa.list_(MEDIUM)))


def state(column: pa.ListArray, folders: Folders) -> int:
    """Number that changes when a file of a column `media` does: its size or its time. Those of
    several columns are added. 0 without media.

    A file takes some microseconds: nothing is read. One that is missing counts as changed.
    """
    total = 0
    for path in column.flatten().field("path").to_pylist():
        try:
            found = Path(full_path(path, folders)).stat()
            now = f"{path} {found.st_size} {found.st_mtime_ns}"
        except OSError:
            now = f"{path} missing"
        total += int.from_bytes(hashlib.blake2b(now.encode(), digest_size=8).digest())
    return total % 2**64


def _full(column: pa.ListArray, folders: Folders) -> pa.ListArray:
    media = column.flatten()
    kinds, paths = media.field("kind"), media.field("path")
    stored = pc.starts_with(paths, PREFIX)
    if len(paths) and folders.root is None and not pc.all(stored).as_py():
        raise RecipeError(
            "the rows have media, and no folder for them is known",
            place="data",
            hint="name one with `media_root:`",
        )
    digests = pc.utf8_slice_codeunits(paths, len(PREFIX))
    of_store = pc.binary_join_element_wise(
        str(folders.store), pc.utf8_slice_codeunits(digests, 0, 2), digests, os.sep
    )
    of_root = pc.binary_join_element_wise(str(folders.root), paths, os.sep)
    full = pa.StructArray.from_arrays(
        [kinds, pc.if_else(stored, of_store, of_root)], fields=list(MEDIUM)
    )
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    ends = pa.array([0, *lengths.cumsum()], pa.int32())
    return pa.ListArray.from_arrays(ends, full)
