"""From the bytes of a file to its records: lazily, one by one, each with its place in the file."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from io import BufferedReader, TextIOWrapper
from typing import Any, TypeAlias

from tunewright import RowError
from tunewright.types import Origin
from tunewright_dataset_chat.unread import listed

#: a record, or the reason why this place of a file holds none
Read: TypeAlias = tuple[Origin, Any] | RowError
#: (binary stream, name of the file) → its records; raises RowError where the file cannot be read on
Reader: TypeAlias = Callable[[BufferedReader, str], Iterator[Read]]

LONGEST = 1 << 28  # bytes of one record: a small packed file may unpack to one endless line
_CHUNK = 1 << 20  # characters of a JSON list that are parsed at a time
_LITERAL = 16  # characters: more than any escape or word of JSON
_DELIMITERS = (" ", "\t", "\r", "\n", ",", "]")  # what may follow a record of a list
_ROWS = 1000  # of a table, made into records at a time


def lines(stream: BufferedReader, name: str) -> Iterator[tuple[int, bytes]]:
    """Lines that are not empty, with their numbers, without a byte order mark."""
    for number, line in enumerate(iter(partial(stream.readline, LONGEST), b""), 1):
        if len(line) == LONGEST:
            raise RowError(f"is longer than {LONGEST >> 20} MiB", place=f"{name}:{number}")
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.isspace():
            yield number, line


def json_lines(stream: BufferedReader, name: str) -> Iterator[Read]:
    parser = RecordParser()
    for number, line in lines(stream, name):
        try:
            yield parser.read(line.decode(), Origin(name, number))
        except (ValueError, RecursionError) as error:
            yield _broken(name, number, error)


def json_file(stream: BufferedReader, name: str) -> Iterator[Read]:
    """A list of records; a file that begins otherwise is read as JSON lines, which many call
    .json."""
    first = stream.peek(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    yield from json_list(stream, name) if first == b"[" else json_lines(stream, name)


def json_list(stream: BufferedReader, name: str) -> Iterator[Read]:
    """The items of one JSON list, which is never whole in memory."""
    with TextIOWrapper(stream, encoding="utf-8-sig", newline="") as opened:
        text = _Text(opened, name)
        text.take("[")
        number = 0
        while text.next() != "]":
            if number:
                text.take(",")
            number += 1
            yield text.record(Origin(name, number))
        text.take("]")
        if more := text.next():
            raise _broken(name, text.line(), f"found {more!r} after the list")


class RecordParser:
    """Parses JSON, and finds objects that have one key twice: of two values one would be lost."""

    def __init__(self) -> None:
        self._twice: list[str] = []  # keys, in what was parsed last
        self._decoder = json.JSONDecoder(object_pairs_hook=self._unique)

    def _unique(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            counts = Counter(key for key, _ in pairs)
            self._twice += [key for key, count in counts.items() if count > 1]
        return found

    def read(self, text: str, origin: Origin) -> Read:
        """The record that a text is. Raises ValueError and RecursionError where it is no JSON."""
        self._twice = []
        record = self._decoder.decode(text)
        return self._refused(origin) if self._twice else (origin, record)

    def read_at(self, text: str, start: int, origin: Origin) -> tuple[Read, int]:
        """The record that begins at `start`, and where it ends. Raises as `read` does."""
        self._twice = []
        record, end = self._decoder.raw_decode(text, start)
        return self._refused(origin) if self._twice else (origin, record), end

    def _refused(self, origin: Origin) -> RowError:
        problem = f"an object has the key {listed(self._twice)} twice"
        return RowError(problem, place=str(origin), hint="leave one of them out")


class _Text:
    """The part of a JSON text that is being parsed."""

    def __init__(self, stream: TextIOWrapper, name: str) -> None:
        self._stream = stream
        self._name = name
        self._parser = RecordParser()
        self._text = ""
        self._at = 0
        self._ended = False
        self._lines = 0  # line ends before this part

    def next(self) -> str:
        """The next character that is no space; '' at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._more(_CHUNK)

    def take(self, expected: str) -> None:
        if self.next() != expected:
            found = self.next() or "the end of the file"
            raise _broken(self._name, self.line(), f"found {found!r}, expected {expected!r}")
        self._at += 1

    def record(self, origin: Origin) -> Read:
        self.next()
        while True:
            try:
                found, end = self._parser.read_at(self._text, self._at, origin)
            except json.JSONDecodeError as error:
                cut_off = (
                    error.msg.startswith("Unterminated string")
                    or error.pos > len(self._text) - _LITERAL
                )
                if self._ended or not cut_off:
                    raise _broken(self._name, self.line(error.pos), error.msg) from error
            except (ValueError, RecursionError) as error:  # such as a number of 5,000 digits
                raise _broken(self._name, self.line(), error) from error
            else:
                # 12 may be the start of 12.5e3
                whole = self._text[end : end + 1] in _DELIMITERS or len(self._text) - end > _LITERAL
                if whole or self._ended:
                    self._at = end
                    return found
            self._more(
                max(_CHUNK, len(self._text))
            )  # twice as much: a long record is parsed a few times only

    def _more(self, size: int) -> None:
        self._lines += self._text.count("\n", 0, self._at)
        if len(self._text) - self._at > LONGEST:
            problem = f"found a record of more than {LONGEST >> 20} MiB, or one that never ends"
            raise _broken(self._name, self.line(), problem)
        self._text, self._at = self._text[self._at :], 0
        try:
            more = self._stream.read(size)
        except UnicodeDecodeError as error:
            raise _broken(self._name, self.line(), error) from error
        self._ended = not more
        self._text += more

    def line(self, position: int | None = None) -> int:
        return (
            self._lines + 1 + self._text.count("\n", 0, self._at if position is None else position)
        )


def _broken(name: str, line: int, problem: object) -> RowError:
    return RowError(f"is not valid JSON: {problem}", place=f"{name}:{line}")


def table(stream: BufferedReader, name: str, delimiter: str) -> Iterator[Read]:
    csv.field_size_limit(2**31 - 1)  # the default, 128 KiB, is less than a long document
    with TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
        rows = csv.DictReader(text, delimiter=delimiter, strict=True)
        try:
            for record in rows:
                if None in record or None in record.values():  # too many cells, or too few
                    problem = (
                        f"does not have the {len(rows.fieldnames or ())} columns of the first line"
                    )
                    yield RowError(problem, place=f"{name}:{rows.line_num}")
                else:
                    yield Origin(name, rows.line_num), record
        except (csv.Error, UnicodeDecodeError) as error:
            raise RowError(f"is not valid CSV: {error}", place=f"{name}:{rows.line_num}") from error


def documents(stream: BufferedReader, name: str) -> Iterator[Read]:
    """One document a line."""
    for number, line in lines(stream, name):
        try:
            yield Origin(name, number), line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            yield RowError(f"is not valid UTF-8: {error}", place=f"{name}:{number}")


def parquet(stream: BufferedReader, name: str) -> Iterator[Read]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        yield from records(parquet.ParquetFile(stream).iter_batches(batch_size=_ROWS), name)
    except pa.ArrowException as error:
        raise RowError(f"is not valid Parquet: {error}", place=name) from error


def arrow(stream: BufferedReader, name: str) -> Iterator[Read]:
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
            yield from records(
                (file.get_batch(number) for number in range(file.num_record_batches)), name
            )
        else:
            yield from records(pa.ipc.open_stream(stream), name)
    except pa.ArrowException as error:
        raise RowError(f"is not valid Arrow: {error}", place=name) from error


def records(batches: Any, name: str) -> Iterator[Read]:
    """The records of Arrow's record batches or tables; `line` counts them from 1."""
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, _ROWS):
            for record in batch.slice(start, _ROWS).to_pylist():
                number += 1
                yield Origin(name, number), record


#: ending → reader of files that may be packed
PLAIN: dict[str, Reader] = {
    ".jsonl": json_lines,
    ".json": json_file,
    ".csv": partial(table, delimiter=","),
    ".tsv": partial(table, delimiter="\t"),
    ".txt": documents,
}
#: endings of files in which all objects of a column have the same keys
ARROW: dict[str, Reader] = {".parquet": parquet, ".arrow": arrow, ".feather": arrow}
READERS: dict[str, Reader] = PLAIN | ARROW
