"""An opened source: its files or hub data, its format, its records."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright import RecipeError, RowError, TunewrightError, registry
from tunewright.types import DataRequest, Origin, RowKind, RunContext
from tunewright.urls import is_url
from tunewright.words import counted
from tunewright_dataset_chat import dataset_info, files, local_paths, remote
from tunewright_dataset_chat.convert import Conversion
from tunewright_dataset_chat.entry import Entry
from tunewright_dataset_chat.files import File
from tunewright_dataset_chat.hub import HubData
from tunewright_dataset_chat.limits import MAX_RECORD_BYTES
from tunewright_dataset_chat.media import Folders
from tunewright_dataset_chat.readers import ARROW, Read
from tunewright_dataset_chat.unread import Unread, listed

if TYPE_CHECKING:
    from tunewright.registry import PluginCaller

Record = tuple[Origin, Any]

#: fields of an Entry that locate the data; its content is covered by `Source.digests`
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
LOOKED_AT = 20  # number of first records used to detect the format
CHECKED = 1000  # number of first records whose names `recipe check` looks at


@dataclass
class Source:
    entry: Entry  # with the fields from dataset_info.json
    place: str  # of the entry in the recipe, for errors
    files: list[File] = field(default_factory=list)
    hub: HubData | None = None  # instead of files
    media: Folders = field(default_factory=Folders)
    notes: list[str] = field(default_factory=list)
    max_record_bytes: int = MAX_RECORD_BYTES
    records: int = 0  # read so far, including broken ones
    format: str = ""  # known after the first record
    format_options: dict[str, Any] = field(default_factory=dict)
    distribution: str = ""  # distribution of the format, with its version
    package: str = ""  # Python package of the format
    detected: bool = False
    part: str = ""  # "3/8": the third of eight files that are sources of their own

    @property
    def title(self) -> str:
        """Display name of the source; without secrets."""
        if self.part:
            return self.files[0].name
        return self.hub.name if self.hub else remote.shown(self.entry.path or "")

    @property
    def note(self) -> str:
        how = f", format {self.format}" + " (detected)" * self.detected if self.format else ""
        return "; ".join([f"{self.title}: {counted(self.records, 'record')}{how}", *self.notes])

    def read(self) -> Iterator[Read]:
        """Read the records in order. Raises RowError if a file is damaged."""
        if self.hub:
            return self.hub.read(self.max_record_bytes)
        return files.read(self.files, self.max_record_bytes)

    def digests(self) -> list[str]:
        """Digests of the stored data."""
        return [self.hub.digest()] if self.hub else [file.digest() for file in self.files]


def open_sources(
    entries: list[Any],
    place: str,
    root: Path,
    max_record_bytes: int = MAX_RECORD_BYTES,
    store: Path | None = None,
) -> list[Source]:
    """Find the files of all sources, before anything is read. store: of media that come as bytes.
    Raises RecipeError."""
    found = [_open(entry, f"{place}.{index}", root) for index, entry in enumerate(entries)]
    return [
        replace(source, max_record_bytes=max_record_bytes, media=replace(source.media, store=store))
        for source in found
    ]


def _open(entry: Entry, at: str, root: Path) -> Source:
    notes = []
    if entry.dataset_info:
        entry, note = dataset_info.resolve(entry, root, at)
        notes = [note] * bool(note)
    assert entry.path
    folders = Folders(media_root(entry, root, at))
    if entry.hub:
        return Source(entry, at, hub=HubData(entry, at), media=folders, notes=notes)
    found = files.find(entry.path, root, entry.wanted(f"{at}.path"))
    notes += found.notes
    return Source(entry, at, found.files, media=folders, notes=notes)


def media_root(entry: Entry, root: Path, at: str) -> Path | None:
    """Folder of a source's media; None if it is not known. at: of the source in the recipe."""
    if entry.media_root:
        return local_paths.resolve(root, entry.media_root, f"{at}.media_root")
    if entry.hub or entry.path is None or is_url(entry.path):
        return None
    start = root / Path(entry.path).expanduser()
    return start if start.is_dir() else start.parent if start.exists() else root


def opened(
    run: RunContext, source: Source, request: DataRequest
) -> tuple[Iterator[Read], Conversion | None]:
    """Records of a source, lazily, and their conversion; None if all records are broken.

    Raises RecipeError if there is no record, no format fits, several do, or the format cannot give
    the rows that the stage needs.
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
        raise _no_record(source)
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
        raise RecipeError(problem, place=place, hint=_fitting(run, request.rows, plugin.rows))
    source.format = plugin.name
    source.format_options = plugin.options.model_dump()
    source.distribution = f"{handle.entry.distribution} {handle.entry.version}"
    source.package = type(plugin).__module__.partition(".")[0]
    written = entry.format.name if entry.format else plugin.name
    options = entry.format.options if entry.format else {}
    chosen = run.plugin("dataset").options
    return found, Conversion(
        written,
        options,
        request.rows,
        entry.columns,
        entry.tags,
        source.media,
        padded=source.hub is not None or any(file.kind in ARROW for file in source.files),
        on_unread=chosen.on_unread,
        order_by=chosen.order_by if source.place.startswith("data.") else None,
    )


def first_records(entry: Entry, root: Path) -> list[Any]:
    """The first records of local files that can be read, under the names that `columns` gives
    them."""
    try:
        source = _open(entry, "", root)
        if source.hub or is_url(source.entry.path or ""):
            return []
        first = itertools.islice(source.read(), LOOKED_AT)
        return [
            _under_our_names(each[1], source.entry) for each in first if isinstance(each, tuple)
        ]
    except (TunewrightError, OSError):  # which is said where the rows are needed
        return []


def unread_lines(run: RunContext, request: DataRequest) -> list[str]:
    """Lines on what no format reads in the first records of local files."""
    most, lines = min(request.limit or CHECKED, CHECKED), []
    entries = [("data", request.entries)]
    entries += [(f"eval_data.{name}", each) for name, each in request.eval_entries.items()]
    for place, each in entries:
        for index, entry in enumerate(each):
            with suppress(TunewrightError, OSError):  # which is said where the rows are needed
                source = _open(entry, f"{place}.{index}", request.root)
                if source.hub or is_url(source.entry.path or ""):
                    continue
                items, conversion = opened(run, source, replace(request, limit=most))
                found = Unread()
                if conversion is not None:
                    counting = replace(conversion, on_unread="warn")
                    counting(run, counting.handle(run), items, found)
                if found.rows:
                    first = f", of the first {most:,} records" * (source.records == most)
                    lines.append(f"{source.title}: {found.line()}{first}")
    return list(dict.fromkeys(lines))


def _under_our_names(record: Any, entry: Entry) -> Any:
    """The record with the columns that the recipe names."""
    if not isinstance(record, dict):
        return record
    return record | {o: record[theirs] for o, theirs in entry.columns.items() if theirs in record}


def _no_record(source: Source) -> RecipeError:
    hint = "write records into it, or take the source out of the recipe"
    return RecipeError(f"{source.title} holds no record", place=f"{source.place}.path", hint=hint)


def _fitting(run: RunContext, needed: str, given: tuple[str, ...]) -> str:
    """The stages that take such rows, and the formats that give those of this one."""
    formats = _names("format", lambda plugin: needed in plugin.rows)
    stages = _names("stage", lambda plugin: plugin.rows in given)
    others = f"stages that train on {' or '.join(given)}: {', '.join(stages)}; " if stages else ""
    return f"{others}formats that give {needed}: {', '.join(formats) or 'none is installed'}"


def _names(kind: str, fits: Callable[[Any], bool]) -> list[str]:
    """The installed plugins of a kind that fit; a broken one does not."""
    found = []
    for entry in registry.entries(kind):
        with suppress(RecipeError, AttributeError):
            found += [entry.name] * fits(registry.load(entry))
    return sorted(set(found))


def _counted(source: Source, limit: int | None) -> Iterator[Read]:
    for item in itertools.islice(source.read(), limit):
        source.records += 1
        yield item


def _detect(run: RunContext, entry: Entry, first: list[Record], rows: RowKind) -> "PluginCaller":
    """The format that recognises most of the first records, preferring formats that give the
    required rows. Records it does not recognise become errors later.

    Raises RecipeError if no format, or several, fit best.
    """
    names = run.installed("format")
    handles: list[Any] = [run.named("format", name) for name in names]
    counts: Counter[str] = Counter()
    for _, record in first:
        seen = _under_our_names(record, entry)
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
    """Hint for turns in a column that their format calls otherwise."""
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
