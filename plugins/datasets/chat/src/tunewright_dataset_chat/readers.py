"""From the bytes of a file to its records: lazily, one by one, each with its place in the file."""

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from io import BufferedReader, TextIOWrapper
from typing import Any, TypeAlias

from tunewright import RowError
from tunewright.types import Origin
from tunewright_dataset_chat import arrow_reader
from tunewright_dataset_chat.limits import too_long
from tunewright_dataset_chat.unread import listed

#: a record, or the reason why this place of a file holds none
Read: TypeAlias = tuple[Origin, Any] | RowError
#: (binary stream, name of the file, bytes that one record may have) → its records; raises RowError
#: where the file cannot be read on
Reader: TypeAlias = Callable[[BufferedReader, str, int], Iterator[Read]]

_CHUNK = 1 << 20  # characters of a JSON list that are parsed at a time
_LITERAL = 16  # characters: more than any escape or word of JSON
_DELIMITERS = (" ", "\t", "\r", "\n", ",", "]")  # what may follow a record of a list
_BOM = b"\xef\xbb\xbf"
_UNDECODED = re.compile("[\udc80-\udcff]")  # bytes that are no UTF-8, as surrogateescape keeps them


def lines(stream: BufferedReader, name: str, limit: int) -> Iterator[tuple[int, bytes] | RowError]:
    """Lines that are not empty, with their numbers, without a byte order mark. One of more than
    `limit` bytes is an error, and is not held in memory."""
    number = 0
    while line := stream.readline(limit + 1):
        number += 1
        if len(line) > limit and not line.endswith(b"\n"):
            yield too_long(limit, f"{name}:{number}")
            while line and not line.endswith(b"\n"):
                line = stream.readline(limit)
            continue
        if number == 1:
            line = line.removeprefix(_BOM)
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
            yield _not_utf8(line, error.start, name, number)
        except (ValueError, RecursionError) as error:
            yield _broken(name, number, error)


def json_file(stream: BufferedReader, name: str, limit: int) -> Iterator[Read]:
    """A list of records; a file that begins otherwise is read as JSON lines, which many call
    .json."""
    first = stream.peek(4096).removeprefix(_BOM).lstrip()[:1]
    yield from (json_list if first == b"[" else json_lines)(stream, name, limit)


def json_list(stream: BufferedReader, name: str, limit: int) -> Iterator[Read]:
    """The items of one JSON list, which is never whole in memory."""
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
        """The next character that is no space; '' at the end."""
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
            except (ValueError, RecursionError) as error:  # a number of 5,000 digits, say
                raise _broken(self._name, self.line(), error) from error
            else:
                # 12 may be the start of 12.5e3
                whole = self._text[end : end + 1] in _DELIMITERS or len(self._text) - end > _LITERAL
                if whole or self._ended:
                    if end - self._at > self._limit:
                        raise too_long(self._limit, f"{self._name}:{self.line()}")
                    self._at = end
                    return found
            self._more(
                max(_CHUNK, len(self._text))
            )  # twice as much: a long record is parsed a few times only

    def _more(self, size: int) -> None:
        self._lines += self._text.count("\n", 0, self._at)
        self._text, self._at = self._text[self._at :], 0
        if len(self._text) > self._limit:
            raise too_long(self._limit, f"{self._name}:{self.line()}")
        try:
            more = self._stream.read(size)
        except UnicodeDecodeError as error:
            raise _not_utf8(error.object, error.start, self._name, self.line()) from error
        self._ended = not more
        self._text += more

    def line(self, position: int | None = None) -> int:
        return (
            self._lines + 1 + self._text.count("\n", 0, self._at if position is None else position)
        )


def _at_end(error: json.JSONDecodeError, length: int) -> bool:
    """Whether more text might have made it valid."""
    return error.msg.startswith("Unterminated string") or error.pos > length - _LITERAL


def _broken(
    name: str, line: int, problem: object, cut_off: bool = False, hint: str = ""
) -> RowError:
    said = " ".join(str(problem).split())
    if cut_off:
        said += ": the file ends in the middle of a record"
        hint = "it seems to have been cut off: get or write it again"
    return RowError(f"is not valid JSON: {said}", place=f"{name}:{line}", hint=hint)


def _not_utf8(data: bytes, start: int, name: str, line: int) -> RowError:
    before = data[max(0, start - 20) : start].decode("utf-8", "replace")
    return RowError(
        f"byte 0x{data[start]:02x} after {before!r} is not UTF-8",
        place=f"{name}:{line}",
        hint="save the file as UTF-8, or name its encoding, such as `encoding: latin-1`",
    )


# ---- tables of text ------------------------------------------------------------------------------


def table(stream: BufferedReader, name: str, limit: int, delimiter: str) -> Iterator[Read]:
    csv.field_size_limit(limit)  # the default, 128 KiB, is less than a long document
    text = _Lines(stream, name, limit)
    rows = csv.DictReader(text, delimiter=delimiter, strict=True)
    try:
        columns = rows.fieldnames or ()
        if error := _undecoded(columns, name, 1):
            raise error
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
            text = (line.removeprefix(_BOM) if number == 1 else line).decode(
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
            return _not_utf8(data, start, name, line)
    return None


def documents(stream: BufferedReader, name: str, limit: int) -> Iterator[Read]:
    """One document a line."""
    for item in lines(stream, name, limit):
        if isinstance(item, RowError):
            yield item
            continue
        number, line = item
        try:
            yield Origin(name, number), line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            yield _not_utf8(line, error.start, name, number)


#: ending → reader of files that may be packed
PLAIN: dict[str, Reader] = {
    ".jsonl": json_lines,
    ".json": json_file,
    ".csv": partial(table, delimiter=","),
    ".tsv": partial(table, delimiter="\t"),
    ".txt": documents,
}
#: endings of files in which all objects of a column have the same keys
ARROW: dict[str, Reader] = {
    ".parquet": arrow_reader.parquet,
    ".arrow": arrow_reader.arrow,
    ".feather": arrow_reader.arrow,
}
READERS: dict[str, Reader] = PLAIN | ARROW
