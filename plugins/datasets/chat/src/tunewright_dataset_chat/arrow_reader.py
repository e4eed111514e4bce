"""Records of Parquet and Arrow files, and of the record batches of other libraries.

Every batch is validated in full before it is looked at: offsets of a broken file would be followed
anywhere in memory.
"""

from collections.abc import Iterator
from io import BufferedReader
from typing import Any

from tunewright import RowError
from tunewright.types import Origin
from tunewright_dataset_chat.limits import too_long

_ROWS = 1000  # of a table, made into records at a time
_BATCH = 1 << 26  # bytes of Parquet that are unpacked at a time

Read = tuple[Origin, Any] | RowError
#: what pyarrow raises for broken files, besides errors of its own
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
    """Rows of a batch that do not take too much memory, going by the largest group of rows."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    largest = max((group.total_byte_size / max(1, group.num_rows) for group in groups), default=1)
    return max(1, min(_ROWS, int(_BATCH / max(1, largest))))


def arrow(stream: BufferedReader, name: str, limit: int) -> Iterator[Read]:
    """Arrow's file format, which is also Feather's second, and its stream format, which datasets
    writes."""
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
    """The records of Arrow's record batches or tables; `line` counts them from 1."""
    number = 0
    for batch in batches:
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
    """The record of a batch of one row; None where it is too long."""
    return row.to_pylist()[0] if row.nbytes <= limit else None
