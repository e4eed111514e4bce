"""One item of the recipe's `data`: its files, its format, its records as rows."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright import RecipeError, RowError
from tunewright.types import DataRequest, Origin, Row, RowsRequest
from tunewright_dataset_chat import files

if TYPE_CHECKING:
    from tunewright.registry import Handle
    from tunewright.run import Run

Record = tuple[Origin, Any]


@dataclass
class Source:
    entry: Any  # Chat.Entry
    place: str  # of the entry in the recipe, for errors
    files: list[Path]
    records: int = 0  # read so far, broken ones included
    format: str = ""  # known when the first record was seen
    distribution: str = ""  # that brings the format, with its version
    detected: bool = False

    @property
    def note(self) -> str:
        how = f", format {self.format}" + " (detected)" * self.detected if self.format else ""
        return f"{self.entry.path}: {self.records} records{how}"


def open_sources(entries: list[Any], place: str, root: Path) -> list[Source]:
    """Find the files of all entries, before anything is read. Raises RecipeError."""
    sources = []
    for index, entry in enumerate(entries):
        at = f"{place}.{index}"
        sources.append(Source(entry, at, files.find(entry.path, root, f"{at}.path")))
    return sources


def rows(run: "Run", source: Source, request: DataRequest, reject: Callable[[RowError], None]) -> Iterator[Row]:
    """A source's rows, lazily; records that cannot be used go to `reject`.

    Raises RecipeError where no format fits, several do, or the format cannot give what the stage needs.
    """
    entry = source.entry
    limit = min((n for n in (entry.limit, request.limit) if n is not None), default=None)
    records = _records(source, limit, reject)
    if entry.format:
        handle, place = run.named("format", entry.format), f"{source.place}.format"
    else:
        first = next(records, None)
        if first is None:
            return
        handle, place = _detect(run, entry, first), str(first[0])
        records = itertools.chain([first], records)
        source.detected = True
    plugin: Any = handle.plugin
    if request.rows not in plugin.rows:
        problem = f"format {plugin.name!r} gives {' or '.join(plugin.rows)}, the stage needs {request.rows}"
        raise RecipeError(problem, place=place)
    source.format = plugin.name
    source.distribution = f"{handle.entry.distribution} {handle.entry.version}"
    asked = RowsRequest(records, request.rows, entry.columns, entry.tags)
    for row in handle.call("convert_rows", run=run, request=asked):
        if isinstance(row, RowError):
            reject(row)
        else:
            yield row


def _records(source: Source, limit: int | None, reject: Callable[[RowError], None]) -> Iterator[Record]:
    for item in itertools.islice(files.read(source.files), limit):
        source.records += 1
        if isinstance(item, RowError):
            reject(item)
        else:
            yield item


def _detect(run: "Run", entry: Any, first: Record) -> "Handle":
    """The one format that knows the first record. Raises RecipeError where none or several do."""
    origin, record = first
    seen, has = record, f"a {type(record).__name__}"
    if isinstance(record, dict):
        has = f"an object with {', '.join(map(str, record)) or 'nothing in it'}"
        # under the format's own names, where the recipe says which column is which
        seen = record | {ours: record[theirs] for ours, theirs in entry.columns.items() if theirs in record}
    names = run.installed("format")
    handles: list[Any] = [run.named("format", name) for name in names]
    matching = [handle for handle in handles if handle.plugin.matches(seen)]
    if len(matching) == 1:
        found: Handle = matching[0]
        return found
    which = " and ".join(handle.plugin.name for handle in matching) or "no format"
    hint = f"name one with `format:`; there are {', '.join(names)}"
    raise RecipeError(f"found {has}: {which} fits, expected exactly one", place=str(origin), hint=hint)
