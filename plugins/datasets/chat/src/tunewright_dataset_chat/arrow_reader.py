"""Reading of Parquet and Arrow files, and of record batches from other libraries.

Every batch is fully validated before use: invalid offsets would read arbitrary memory.
"""

from collections.abc import Iterator
from io import BufferedReader
from typing import Any

from tunewright import RowError
from tunewright.types import Origin
from tunewright_dataset_chat.limits import too_long
from tunewright_dataset_chat.unread import check_columns

_ROWS = 1000  # rows of a table converted to records at a time
_BATCH = 1 << 26  # bytes of Parquet decompressed at a time

Read = tuple[Origin, Any] | RowError
#: errors that pyarrow raises for broken files, besides its own
_BROKEN = (OSError, ValueError, KeyError, TypeError, NotImplementedError, MemoryError)


def parquet(stream: BufferedReader, name: str, limit: int) -> Iterator[Read]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(stream)
        yield from records(file.iter_batches(batch_size=_batch_size(file.metadata)), name, limit)
    except (pa.ArrowException, *_BROKEN) as error:
        raise _invalid("Parquet", name, error) from error


def _batch_size(metadata: Any) -> int:
    """Rows per batch that fit in memory, judged by the largest row group."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    largest = max((group.total_byte_size / max(1, group.num_rows) for group in groups), default=1)
    return max(1, min(_ROWS, int(_BATCH / max(1, largest))))


def arrow(stream: BufferedReader, name: str, limit: int) -> Iterator[Read]:
    """Read Arrow's file format (also Feather version 2) and its stream format (written by the
    datasets library)."""
    import pyarrow as pa

    try:
        magic = stream.read(6)
        stream.seek(0)
        if magic[:4] == b"FEA1":
            raise RowError(
                "is of Feather's first version", place=name, hint="write it again with pyarrow"
            )
        if magic == b"ARROW1":
            file = pa.ipc.open_file(stream)
            batches = (file.get_batch(number) for number in range(file.num_record_batches))
        else:
            batches = pa.ipc.open_stream(stream)
        yield from records(batches, name, limit)
    except (pa.ArrowException, *_BROKEN) as error:
        raise _invalid("Arrow", name, error) from error


def _invalid(kind: str, name: str, error: BaseException) -> RowError:
    said = " ".join(str(error).split()) or type(error).__name__
    return RowError(f"is not valid {kind}: {said[:300]}", place=name)


def records(batches: Any, name: str, limit: int) -> Iterator[Read]:
    """Yield the records of Arrow record batches or tables; `line` counts them from 1."""
    number = 0
    for batch in batches:
        if not number:
            check_columns(batch.schema.names, name)
        batch.validate(full=True)
        for start in range(0, batch.num_rows, _ROWS):
            some = batch.slice(start, _ROWS)
            if some.nbytes <= limit:
                rows: Any = some.to_pylist()
            else:
                rows = (_one(some.slice(place, 1), limit) for place in range(some.num_rows))
            for record in rows:
                number += 1
                if record is None:
                    yield too_long(limit, f"{name}:{number}")
                else:
                    yield Origin(name, number), record


def _one(row: Any, limit: int) -> Any:
    """Record of a batch of one row; None if it is too large."""
    return row.to_pylist()[0] if row.nbytes <= limit else None
