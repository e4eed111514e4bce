"""Rows of sources as formats give them, for prediction and evaluation."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

from tunewright import RecipeError, RowError
from tunewright.types import DataRequest, Row, RowKind, RunContext
from tunewright_dataset_chat.convert import Conversion
from tunewright_dataset_chat.readers import Read
from tunewright_dataset_chat.source import Source, open_sources, opened
from tunewright_dataset_chat.unread import Unread

_CHUNK = 100  # records that are converted together


def examples(
    run: RunContext, request: DataRequest, kinds: tuple[RowKind, ...], max_record_bytes: int
) -> Iterator[Row | RowError]:
    """Rows of request.entries, in order; errors in place of records that cannot be used. Raises
    RecipeError where a source has no row of these kinds."""
    for source in open_sources(request.entries, "data", request.root, max_record_bytes):
        items, conversion = _opened(run, source, request, kinds)
        if conversion is None:  # every record is broken
            yield from (item for item in items if isinstance(item, RowError))
            continue
        format_caller = conversion.handle(run)
        while chunk := list(itertools.islice(items, _CHUNK)):
            yield from conversion(run, format_caller, chunk, Unread())


def _opened(
    run: RunContext, source: Source, request: DataRequest, kinds: tuple[RowKind, ...]
) -> tuple[Iterator[Read], Conversion | None]:
    """Records and conversion to the first kind of rows that the source's format gives."""
    first: RecipeError | None = None
    for kind in kinds:
        try:
            return opened(run, source, replace(request, rows=kind))
        except RecipeError as error:
            first = first or error
    assert first is not None
    raise first
