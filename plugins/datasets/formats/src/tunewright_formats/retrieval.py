"""Format retrieval: a query with documents that fit it, and others that do not."""

from collections.abc import Iterator
from typing import Any, ClassVar

from tunewright import Format, RowError, hookimpl
from tunewright.types import Retrieval, Row, RowKind, RowsRequest
from tunewright_formats.fields import bad, listing, text
from tunewright_formats.record_reader import RecordReader, check_names, convert_many

_QUERIES = ("query", "anchor")
_POSITIVES = ("positive", "positives", "pos")
_NEGATIVES = ("negative", "negatives", "neg")


class QueriesWithDocuments(Format):
    """Records with `query` (or `anchor`) and `positive` (or `positives`, `pos`), a document or a
    list of them; optionally `negative` (or `negatives`, `neg`), likewise. All are texts.

    A record gives one row per fitting document, each with all that do not fit.
    """

    rows: ClassVar[tuple[RowKind, ...]] = ("retrieval",)

    @staticmethod
    def matches(record: Any) -> bool:
        return isinstance(record, dict) and all(
            any(record.get(name) is not None for name in names) for names in (_QUERIES, _POSITIVES)
        )

    @hookimpl
    def convert_rows(self, request: RowsRequest) -> Iterator[Row | RowError]:
        reader = RecordReader(request, (*_QUERIES, *_POSITIVES, *_NEGATIVES))
        check_names(request.tags, (), "tags")
        return convert_many(self, request, reader, lambda record: _convert(record, reader))


def _convert(source: Any, reader: RecordReader) -> list[Retrieval]:
    record = reader.read(source)
    (query,) = _texts(record, _QUERIES, reader, single=True)
    positives = _texts(record, _POSITIVES, reader)
    negatives = _texts(record, _NEGATIVES, reader) if _given(record, _NEGATIVES) else []
    for negative in negatives:
        if negative in positives:
            bad(_column(record, _NEGATIVES, reader), "has a document that is among those that fit")
    return [Retrieval(query, positive, negatives) for positive in dict.fromkeys(positives)]


def _given(record: dict[str, Any], names: tuple[str, ...]) -> bool:
    return any(record[name] not in (None, []) for name in names)


def _column(record: dict[str, Any], names: tuple[str, ...], reader: RecordReader) -> str:
    """The source's name of the first of these columns that is given."""
    found = reader.first(record, names)
    if found is None:
        bad(reader.names[names[0]], f"is missing, expected text in {' or '.join(names)}")
    return found


def _texts(
    record: dict[str, Any], names: tuple[str, ...], reader: RecordReader, single: bool = False
) -> list[str]:
    """Texts of the first of these columns that is given."""
    column = _column(record, names, reader)
    value, field = record[column], reader.names[column]
    if single or not isinstance(value, list):
        return [text(value, field)]
    return [text(each, f"{field}[{n}]") for n, each in enumerate(listing(value, field))]
