"""text: one document a record."""

from collections.abc import Iterator
from typing import Any, ClassVar

from tunewright import Format, RowError, hookimpl
from tunewright.types import Row, RowKind, RowsRequest, Text
from tunewright_formats.fields import text
from tunewright_formats.record_reader import RecordReader, check_names, convert

_OTHERS = (
    "instruction",
    "conversations",
    "messages",
    "chosen",
    "prompt",
)  # columns of formats that hold more


class PlainText(Format):
    """Documents to learn by heart: lines of a text file, or records with `text`."""

    rows: ClassVar[tuple[RowKind, ...]] = ("text",)

    @staticmethod
    def matches(record: Any) -> bool:
        if isinstance(record, dict):
            return "text" in record and not any(column in record for column in _OTHERS)
        return isinstance(record, str)

    @hookimpl
    def convert_rows(self, request: RowsRequest) -> Iterator[Row | RowError]:
        reader = RecordReader(request, ("text",), ("text",))
        check_names(request.tags, (), "tags")
        return convert(self, request, reader, lambda record: _convert(record, reader))


def _convert(record: Any, reader: RecordReader) -> Text:
    value = record if isinstance(record, str) else reader.read(record)["text"]
    return Text(text(value, reader.names["text"]))
