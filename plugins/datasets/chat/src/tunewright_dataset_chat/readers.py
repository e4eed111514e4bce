"""Readers of file formats: yield records lazily, each with its position in the file."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from io import BufferedReader, TextIOWrapper
from typing import Any, TypeAlias

from tunewright import RowError
from tunewright.jsontext import RepeatedKeys, unique_keys
from tunewright.types import Origin
from tunewright_dataset_chat import arrow_reader
from tunewright_dataset_chat.csv_reader import table
from tunewright_dataset_chat.decoding import BOM, not_utf8
from tunewright_dataset_chat.limits import too_long
from tunewright_dataset_chat.unread import listed

#: a record, or the error at this position
Read: TypeAlias = tuple[Origin, Any] | RowError
#: (binary stream, name of the file, maximum bytes per record) → its records; raises RowError if the
#: file is damaged
Reader: TypeAlias = Callable[[BufferedReader, str, int], Iterator[Read]]

_CHUNK = 1 << 20  # characters of a JSON list that are parsed at a time
_LITERAL = 16  # characters: longer than any escape or JSON keyword
_DELIMITERS = (" ", "\t", "\r", "\n", ",", "]")  # characters that may follow a record in a list


def lines(stream: BufferedReader, name: str, limit: int) -> Iterator[tuple[int, bytes] | RowError]:
    """Yield non-empty lines with their numbers, without a byte order mark. A line of more than
    `limit` bytes is an error, and is not kept in memory."""
    number = 0
    while line := stream.readline(limit + 1):
        number += 1
        if len(line) > limit and not line.endswith(b"\n"):
            yield too_long(limit, f"{name}:{number}")
            while line and not line.endswith(b"\n"):
                line = stream.readline(limit)
            continue
        if number == 1:
            line = line.removeprefix(BOM)
        if not line.isspace():
            yield number, line


def json_lines(stream: BufferedReader, name: str, limit: int) -> Iterator[Read]:
    parser = RecordParser()
    for item in lines(stream, name, limit):
        if isinstance(item, RowError):
            yield item
            continue
        number, line = item
        try:
            yield parser.read(line.decode(), Origin(name, number))
        except json.JSONDecodeError as error:
            at_end = _at_end(error, len(error.doc.rstrip()))
            hint = "a record stands in one line" if at_end else ""
            yield _broken(name, number, error, at_end and not stream.peek(1), hint)
        except UnicodeDecodeError as error:
            yield not_utf8(line, error.start, name, number)
        except (ValueError, RecursionError) as error:
            yield _broken(name, number, error)


def json_file(stream: BufferedReader, name: str, limit: int) -> Iterator[Read]:
    """Read a list of records; a file that starts otherwise is read as JSON lines, which are often
    named .json."""
    first = stream.peek(4096).removeprefix(BOM).lstrip()[:1]
    yield from (json_list if first == b"[" else json_lines)(stream, name, limit)


def json_list(stream: BufferedReader, name: str, limit: int) -> Iterator[Read]:
    """Yield the items of one JSON list, which is never entirely in memory."""
    with TextIOWrapper(stream, encoding="utf-8-sig", newline="") as opened:
        text = _Text(opened, name, limit)
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
    """Parses JSON, and detects objects with duplicate keys, whose first value would be lost."""

    def __init__(self) -> None:
        self._twice: list[str] = []  # duplicate keys in the last text parsed
        self._decoder = json.JSONDecoder(object_pairs_hook=self._unique)

    def _unique(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        try:
            return unique_keys(pairs)
        except RepeatedKeys as error:  # a list of records goes on behind this one
            self._twice += error.keys
            return dict(pairs)

    def read(self, text: str, origin: Origin) -> Read:
        """Parse a record. Raises ValueError and RecursionError if it is not JSON."""
        self._twice = []
        record = self._decoder.decode(text)
        return self._refused(origin) if self._twice else (origin, record)

    def read_at(self, text: str, start: int, origin: Origin) -> tuple[Read, int]:
        """Parse the record at `start`. Returns it and its end. Raises as `read` does."""
        self._twice = []
        record, end = self._decoder.raw_decode(text, start)
        return self._refused(origin) if self._twice else (origin, record), end

    def _refused(self, origin: Origin) -> RowError:
        problem = f"an object has the key {listed(self._twice)} twice"
        return RowError(problem, place=str(origin), hint="leave one of them out")


class _Text:
    """The buffered part of a JSON text."""

    def __init__(self, stream: TextIOWrapper, name: str, limit: int) -> None:
        self._stream = stream
        self._name = name
        self._limit = limit
        self._parser = RecordParser()
        self._text = ""
        self._at = 0
        self._ended = False
        self._lines = 0  # line ends before this part

    def next(self) -> str:
        """Next non-space character; '' at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._more(_CHUNK)

    def take(self, expected: str) -> None:
        found = self.next()
        if found != expected:
            problem = f"found {found or 'the end of the file'!r}, expected {expected!r}"
            raise _broken(self._name, self.line(), problem, cut_off=not found)
        self._at += 1

    def record(self, origin: Origin) -> Read:
        self.next()
        while True:
            try:
                found, end = self._parser.read_at(self._text, self._at, origin)
            except json.JSONDecodeError as error:
                at_end = _at_end(error, len(self._text))
                if self._ended or not at_end:
                    raise _broken(self._name, self.line(error.pos), error.msg, at_end) from error
            except (ValueError, RecursionError) as error:  # a number of 5,000 digits, for example
                raise _broken(self._name, self.line(), error) from error
            else:
                # 12 may be the start of 12.5e3
                whole = self._text[end : end + 1] in _DELIMITERS or len(self._text) - end > _LITERAL
                if whole or self._ended:
                    if end - self._at > self._limit:
                        raise too_long(self._limit, f"{self._name}:{self.line()}")
                    self._at = end
                    return found
            # double the buffer, so that a long record is parsed only a few times
            self._more(max(_CHUNK, len(self._text)))

    def _more(self, size: int) -> None:
        self._lines += self._text.count("\n", 0, self._at)
        self._text, self._at = self._text[self._at :], 0
        if len(self._text) > self._limit:
            raise too_long(self._limit, f"{self._name}:{self.line()}")
        try:
            more = self._stream.read(size)
        except UnicodeDecodeError as error:
            raise not_utf8(error.object, error.start, self._name, self.line()) from error
        self._ended = not more
        self._text += more

    def line(self, position: int | None = None) -> int:
        return (
            self._lines + 1 + self._text.count("\n", 0, self._at if position is None else position)
        )


def _at_end(error: json.JSONDecodeError, length: int) -> bool:
    """Whether more text could make it valid."""
    return error.msg.startswith("Unterminated string") or error.pos > length - _LITERAL


def _broken(
    name: str, line: int, problem: object, cut_off: bool = False, hint: str = ""
) -> RowError:
    said = " ".join(str(problem).split())
    if cut_off:
        said += ": the file ends in the middle of a record"
        hint = "it seems to have been cut off: get or write it again"
    return RowError(f"is not valid JSON: {said}", place=f"{name}:{line}", hint=hint)


def documents(stream: BufferedReader, name: str, limit: int) -> Iterator[Read]:
    """Yield one document per line."""
    for item in lines(stream, name, limit):
        if isinstance(item, RowError):
            yield item
            continue
        number, line = item
        try:
            yield Origin(name, number), line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            yield not_utf8(line, error.start, name, number)


#: extension → reader of files that may be compressed
PLAIN: dict[str, Reader] = {
    ".jsonl": json_lines,
    ".json": json_file,
    ".csv": partial(table, delimiter=","),
    ".tsv": partial(table, delimiter="\t"),
    ".txt": documents,
}
#: extensions of formats in which all objects of a column have the same keys
ARROW: dict[str, Reader] = {
    ".parquet": arrow_reader.parquet,
    ".arrow": arrow_reader.arrow,
    ".feather": arrow_reader.arrow,
}
READERS: dict[str, Reader] = PLAIN | ARROW
