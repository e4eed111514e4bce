"""Format text: one document per record."""

from collections.abc import Iterator
from typing import Any, ClassVar

from tunewright import Format, RowError, hookimpl
from tunewright.types import Row, RowKind, RowsRequest, Text
from tunewright_formats.fields import text
from tunewright_formats.media import MEDIA_COLUMNS, document
from tunewright_formats.record_reader import RecordReader, check_names, convert

# columns of formats with more structure
_OTHERS = (
    "instruction",
    "conversations",
    "messages",
    "chosen",
    "prompt",
)


class PlainText(Format):
    """Documents for pretraining: lines of a text file, or records with `text`, and optionally
    `images`, `videos`, `audios`, which stand at <image>, <video> and <audio> in it."""

    rows: ClassVar[tuple[RowKind, ...]] = ("text",)

    @staticmethod
    def matches(record: Any) -> bool:
        if isinstance(record, dict):
            return "text" in record and not any(column in record for column in _OTHERS)
        return isinstance(record, str)

    @hookimpl
    def convert_rows(self, request: RowsRequest) -> Iterator[Row | RowError]:
        reader = RecordReader(request, ("text", *MEDIA_COLUMNS), ("text",))
        check_names(request.tags, (), "tags")
        return convert(self, request, reader, lambda record: _convert(record, reader))


def _convert(source: Any, reader: RecordReader) -> Text:
    if isinstance(source, str):
        return Text(text(source, reader.names["text"]))
    record = reader.read(source)
    return Text(document(text(record["text"], reader.names["text"]), record, reader))
