"""One item of the recipe's `data`: where its records are, its format, its records as rows."""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright import RecipeError, RowError
from tunewright.types import DataRequest, Origin, RowKind
from tunewright_dataset_chat import dataset_info, files, local_paths, remote
from tunewright_dataset_chat.convert import Conversion
from tunewright_dataset_chat.entry import Entry
from tunewright_dataset_chat.files import File
from tunewright_dataset_chat.hub import HubData
from tunewright_dataset_chat.limits import MAX_RECORD_BYTES
from tunewright_dataset_chat.readers import ARROW, Read
from tunewright_dataset_chat.unread import listed

if TYPE_CHECKING:
    from tunewright.registry import PluginCaller
    from tunewright.run import Run

Record = tuple[Origin, Any]

#: fields of an Entry that say where data is; what is there is told by `Source.digests`
WHERE = {
    "path",
    "hub",
    "dataset_info",
    "name",
    "split",
    "subset",
    "folder",
    "revision",
    "format",
    "media_root",
}
#: column of turns, key of their role, format
_TURNS = (("messages", "role", "openai"), ("conversations", "from", "sharegpt"))
LOOKED_AT = 20  # first records, from which the format is found


@dataclass
class Source:
    entry: Entry  # what dataset_info says is filled in
    place: str  # of the entry in the recipe, for errors
    files: list[File] = field(default_factory=list)
    hub: HubData | None = None  # in place of files
    media_root: Path | None = None  # None: paths of media are refused
    notes: list[str] = field(default_factory=list)
    max_record_bytes: int = MAX_RECORD_BYTES
    records: int = 0  # read so far, broken ones included
    format: str = ""  # known when the first record was seen
    format_options: dict[str, Any] = field(default_factory=dict)
    distribution: str = ""  # that brings the format, with its version
    package: str = ""  # the format's Python package
    detected: bool = False

    @property
    def title(self) -> str:
        """The source in messages; without secrets."""
        return self.hub.name if self.hub else remote.shown(self.entry.path or "")

    @property
    def note(self) -> str:
        how = f", format {self.format}" + " (detected)" * self.detected if self.format else ""
        return "; ".join([f"{self.title}: {self.records} records{how}", *self.notes])

    def read(self) -> Iterator[Read]:
        """Records, in order. Raises RowError where a file cannot be read on."""
        if self.hub:
            return self.hub.read(self.max_record_bytes)
        return files.read(self.files, self.max_record_bytes)

    def digests(self) -> list[str]:
        """What changes when the stored data changes."""
        return [self.hub.digest()] if self.hub else [file.digest() for file in self.files]


def open_sources(
    entries: list[Any], place: str, root: Path, max_record_bytes: int = MAX_RECORD_BYTES
) -> list[Source]:
    """Find the files of all entries, before anything is read. Raises RecipeError."""
    return [
        replace(_open(entry, f"{place}.{index}", root), max_record_bytes=max_record_bytes)
        for index, entry in enumerate(entries)
    ]


def _open(entry: Entry, at: str, root: Path) -> Source:
    notes = []
    if entry.dataset_info:
        entry, note = dataset_info.resolve(entry, root, at)
        notes = [note] * bool(note)
    assert entry.path
    media_root = (
        local_paths.resolve(root, entry.media_root, f"{at}.media_root")
        if entry.media_root
        else None
    )
    if entry.hub:
        return Source(entry, at, hub=HubData(entry, at), media_root=media_root, notes=notes)
    found = files.find(entry.path, root, entry.wanted(f"{at}.path"))
    notes += found.notes
    if media_root is None and not remote.is_url(entry.path):
        start = root / Path(entry.path).expanduser()
        media_root = start if start.is_dir() else start.parent if start.exists() else root
    return Source(entry, at, found.files, media_root=media_root, notes=notes)


def opened(
    run: "Run", source: Source, request: DataRequest
) -> tuple[Iterator[Read], Conversion | None]:
    """A source's records, lazily, and how they become rows; None where there is none but broken
    ones.

    Raises RecipeError where there is no record, no format fits, several do, or the format cannot
    give what the stage needs.
    """
    entry = source.entry
    limit = min((n for n in (entry.limit, request.limit) if n is not None), default=None)
    found = _counted(source, limit)
    first: list[Read] = []
    seen: list[Record] = []
    for item in found:
        first.append(item)
        if not isinstance(item, RowError):
            seen.append(item)
        if entry.format or len(seen) == LOOKED_AT:
            break
    if not first:
        raise RecipeError(f"{source.title} holds no record", place=f"{source.place}.path")
    found = itertools.chain(first, found)
    if entry.format:
        handle, place = (
            run.named("format", entry.format.name, **entry.format.options),
            f"{source.place}.format",
        )
    elif seen:
        handle, place = _detect(run, entry, seen, request.rows), str(seen[0][0])
        source.detected = True
    else:
        return found, None
    plugin: Any = handle.plugin
    if request.rows not in plugin.rows:
        has = f"found {_described(seen[0][1])}: " if source.detected else ""
        problem = (
            f"{has}format {plugin.name!r} gives {' or '.join(plugin.rows)}, the stage "
            f"needs {request.rows}"
        )
        raise RecipeError(problem, place=place, hint=_fitting(run, request.rows))
    source.format = plugin.name
    source.format_options = plugin.options.model_dump()
    source.distribution = f"{handle.entry.distribution} {handle.entry.version}"
    source.package = type(plugin).__module__.partition(".")[0]
    written = entry.format.name if entry.format else plugin.name
    options = entry.format.options if entry.format else {}
    return found, Conversion(
        written,
        options,
        request.rows,
        entry.columns,
        entry.tags,
        source.media_root,
        padded=source.hub is not None or any(file.kind in ARROW for file in source.files),
        on_unread=run.plugin("dataset").options.on_unread,
    )


def _fitting(run: "Run", needed: str) -> str:
    every: list[Any] = [run.named("format", name).plugin for name in run.installed("format")]
    names = [plugin.name for plugin in every if needed in plugin.rows]
    return f"formats that give {needed}: {', '.join(names) or 'none is installed'}"


def _counted(source: Source, limit: int | None) -> Iterator[Read]:
    for item in itertools.islice(source.read(), limit):
        source.records += 1
        yield item


def _detect(run: "Run", entry: Entry, first: list[Record], rows: RowKind) -> "PluginCaller":
    """The one format that knows most of the first records; before all others, of those that give
    what is needed. The records that it does not know will be errors of their own.

    Raises RecipeError where none or several do.
    """
    names = run.installed("format")
    handles: list[Any] = [run.named("format", name) for name in names]
    counts: Counter[str] = Counter()
    for _, record in first:
        seen = record
        if isinstance(record, dict):
            # under the format's own names, where the recipe says which column is which
            seen = record | {
                ours: record[theirs] for ours, theirs in entry.columns.items() if theirs in record
            }
        counts.update(handle.plugin.name for handle in handles if handle.plugin.matches(seen))
    known = [handle for handle in handles if counts[handle.plugin.name]]
    known = [handle for handle in known if rows in handle.plugin.rows] or known
    most = max((counts[handle.plugin.name] for handle in known), default=0)
    best = [handle for handle in known if counts[handle.plugin.name] == most]
    if len(best) == 1:
        found: PluginCaller = best[0]
        return found
    origin, record = first[0]
    which = " and ".join(handle.plugin.name for handle in best) or "no format"
    hint = _renamed(record) or f"name one with `format:`; there are {', '.join(names)}"
    problem = f"found {_described(record)}: {which} fits, expected exactly one"
    raise RecipeError(problem, place=str(origin), hint=hint)


def _renamed(record: Any) -> str:
    """A hint where turns stand in a column that the format of such turns calls otherwise."""
    for name, value in record.items() if isinstance(record, dict) else ():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            for column, role, known in _TURNS:
                if role in value[0]:
                    return f"`format: {known}, columns: {{{column}: {listed([name])}}}` reads turns"
    return ""


def _described(record: Any) -> str:
    if isinstance(record, dict):
        return f"an object with {listed(list(record)) or 'nothing in it'}"
    return f"a {type(record).__name__}"
