"""Format rendered: text rendered elsewhere, with marks on what is trained."""

import math
from collections.abc import Iterator
from typing import Any, ClassVar

from tunewright import Format, RowError, hookimpl
from tunewright.types import RenderedText, Row, RowKind, RowsRequest
from tunewright_formats.fields import bad, describe, listing, mapping, text
from tunewright_formats.record_reader import RecordReader, check_names, convert

COLUMNS = ("text", "prompt", "completion", "segments")
MARKS = ("train", "label", "weight")  # keys of a segment that say whether it is trained

_KEYS = frozenset({"text", *MARKS})

#: texts with their loss weights; 0 is not trained
Pieces = list[tuple[str, float]]


class RenderedFormat(Format):
    """Records of text that is trained exactly as written: no template is applied, no token is
    added, and special tokens spelled in the text are tokens.

    A record has `text`, all of it trained; or `prompt` and `completion`, of which the completion is
    trained; or `segments`, a list of objects with `text` and one of `train`, `label` (true or
    false) and `weight` (a loss weight). It is never detected: name it with `format: rendered`.
    """

    rows: ClassVar[tuple[RowKind, ...]] = ("messages", "text")

    @hookimpl
    def convert_rows(self, request: RowsRequest) -> Iterator[Row | RowError]:
        reader = RecordReader(request, COLUMNS)
        check_names(request.tags, (), "tags")
        weighted = request.rows == "messages"
        return convert(self, request, reader, lambda record: _convert(record, reader, weighted))


def _convert(source: Any, reader: RecordReader, weighted: bool) -> RenderedText:
    record, names = reader.read(source), reader.names
    given = [name for name in ("text", "completion", "segments") if record[name] is not None]
    if len(given) != 1:
        found = " and ".join(names[name] for name in given) or describe(source)
        expected = "expected one of text, prompt and completion, segments"
        bad("record", f"found {found}, {expected}")
    if record["segments"] is not None:
        pieces = list(_segments(record["segments"], names["segments"], reader, weighted))
    elif record["completion"] is not None:
        pieces = [
            (text(record["prompt"], names["prompt"]), 0.0),
            (text(record["completion"], names["completion"]), 1.0),
        ]
    else:
        pieces = [(text(record["text"], names["text"]), 1.0)]
    return RenderedText("".join(piece for piece, _ in pieces), _spans(pieces))


def _segments(
    value: Any, field: str, reader: RecordReader, weighted: bool
) -> Iterator[tuple[str, float]]:
    for place, segment in enumerate(listing(value, field)):
        at = f"{field}[{place}]"
        found = mapping(segment, at)
        reader.keys(found, _KEYS)
        if not isinstance(found.get("text"), str):
            bad(f"{at}.text", f"found {describe(found.get('text'))}, expected text")
        marks = [key for key in MARKS if found.get(key) is not None]
        if len(marks) != 1:
            bad(at, f"has {' and '.join(marks) or 'no mark'}, expected one of {', '.join(MARKS)}")
        yield found["text"], _weight(found[marks[0]], f"{at}.{marks[0]}", weighted)


def _weight(value: Any, field: str, weighted: bool) -> float:
    if not isinstance(value, bool | int | float) or not 0 <= value < math.inf:
        bad(field, f"found {describe(value)}, expected true, false or a loss weight")
    if value not in (0, 1) and not weighted:
        bad(field, f"found {describe(value)}, and documents have no loss weights: true or false")
    return float(value)


def _spans(pieces: Pieces) -> list[tuple[int, int, float]]:
    """Trained character spans. Adjacent pieces of equal weight form one span, because tokens are
    not split within a span."""
    spans: list[tuple[int, int, float]] = []
    start = 0
    for piece, weight in pieces:
        end = start + len(piece)
        if weight and piece:
            if spans and spans[-1][1:] == (start, weight):
                spans[-1] = (spans[-1][0], end, weight)
            else:
                spans.append((start, end, weight))
        start = end
    return spans
