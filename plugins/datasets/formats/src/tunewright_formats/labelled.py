"""Format labelled: a text with its class, its classes, or a number."""

import math
from collections.abc import Iterator
from typing import Any, ClassVar

from tunewright import Format, RowError, hookimpl
from tunewright.types import Labelled, Row, RowKind, RowsRequest
from tunewright_formats.fields import LARGEST, bad, describe, text
from tunewright_formats.record_reader import RecordReader, check_names, convert

_TEXTS = ("text", "sentence")
_LABELS = ("label", "labels")


class TextsWithLabels(Format):
    """Records with `text` (or `sentence`), and `label` (or `labels`): the name of a class, a
    number, or a list of names."""

    rows: ClassVar[tuple[RowKind, ...]] = ("labelled",)

    @staticmethod
    def matches(record: Any) -> bool:
        return isinstance(record, dict) and all(
            any(record.get(name) is not None for name in names) for names in (_TEXTS, _LABELS)
        )

    @hookimpl
    def convert_rows(self, request: RowsRequest) -> Iterator[Row | RowError]:
        reader = RecordReader(request, (*_TEXTS, *_LABELS))
        check_names(request.tags, (), "tags")
        return convert(self, request, reader, lambda record: _convert(record, reader))


def _convert(source: Any, reader: RecordReader) -> Labelled:
    record = reader.read(source)
    written, labelled = reader.first(record, _TEXTS), reader.first(record, _LABELS)
    if written is None:
        bad(reader.names["text"], f"is missing, expected text in {' or '.join(_TEXTS)}")
    if labelled is None:
        bad(reader.names["label"], "is missing, expected the name of a class, or a number")
    value, field = record[labelled], reader.names[labelled]
    several = isinstance(value, list)
    labels = [_name(each, field) for each in (value if several else [value])]
    if len(set(labels)) < len(labels):
        bad(field, "has a class twice")
    number = None if several else _number(labels[0])
    return Labelled(text(record[written], reader.names[written]), labels, number)


def _name(value: Any, field: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, int | float) and abs(value) <= LARGEST:  # NaN is not
        return str(value)
    bad(field, f"found {describe(value)}, expected the name of a class, or a number")


def _number(name: str) -> float | None:
    try:
        found = float(name)
    except ValueError:
        return None
    return found if math.isfinite(found) else None
