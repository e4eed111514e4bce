"""Records of tables of text: a line of names, and a record for each further one."""

import csv
import re
from collections.abc import Iterable, Iterator
from io import BufferedReader
from typing import Any

from tunewright import RowError
from tunewright.types import Origin
from tunewright_dataset_chat.decoding import BOM, not_utf8
from tunewright_dataset_chat.limits import too_long
from tunewright_dataset_chat.unread import check_columns

#: bytes that are no UTF-8, as surrogateescape keeps them
_UNDECODED = re.compile("[\udc80-\udcff]")


def table(
    stream: BufferedReader, name: str, limit: int, delimiter: str
) -> Iterator[tuple[Origin, Any] | RowError]:
    csv.field_size_limit(limit)  # the default, 128 KiB, is less than a long document
    text = _Lines(stream, name, limit)
    rows = csv.DictReader(text, delimiter=delimiter, strict=True)
    try:
        columns = list(rows.fieldnames or ())
        if error := _undecoded(columns, name, 1):
            raise error
        rows.fieldnames = [column or f"column {n}" for n, column in enumerate(columns, 1)]
        check_columns(rows.fieldnames, f"{name}:1")
        for record in rows:
            text.length = 0
            if None in record or None in record.values():  # too many cells, or too few
                problem = f"does not have the {len(columns)} columns of the first line"
                yield RowError(problem, place=f"{name}:{rows.line_num}")
            elif error := _undecoded(record.values(), name, rows.line_num):
                yield error
            else:
                yield Origin(name, rows.line_num), record
    except csv.Error as broken:
        raise RowError(f"is not valid CSV: {broken}", place=f"{name}:{rows.line_num}") from broken


class _Lines:
    """The lines of a table, for the library that puts them together into records. Bytes that are
    not UTF-8 stay in them, so that only their own record cannot be used."""

    def __init__(self, stream: BufferedReader, name: str, limit: int) -> None:
        self._stream, self._name, self._limit = stream, name, limit
        self.length = 0  # bytes of the record so far

    def __iter__(self) -> Iterator[str]:
        number = 0
        while line := self._stream.readline(self._limit + 1):
            number += 1
            self.length += len(line)
            if self.length > self._limit:
                raise too_long(self._limit, f"{self._name}:{number}")
            text = (line.removeprefix(BOM) if number == 1 else line).decode(
                "utf-8", "surrogateescape"
            )
            if "\r" in text.removesuffix("\r\n"):  # alone it ends a line as well
                yield from re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", text)
            else:
                yield text


def _undecoded(cells: Iterable[str], name: str, line: int) -> RowError | None:
    """The error of the first cell that was not UTF-8, if there is one."""
    for cell in cells:
        if found := _UNDECODED.search(cell):
            data = cell.encode("utf-8", "surrogateescape")
            start = len(cell[: found.start()].encode("utf-8"))
            return not_utf8(data, start, name, line)
    return None
