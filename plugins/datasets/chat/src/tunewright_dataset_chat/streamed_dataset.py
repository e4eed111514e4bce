"""Streaming: rows are read, rendered and tokenised during training, for data larger than the disk
or without end.

The order of an epoch follows from (seed, epoch): the order of each source's files, the mixing of
sources, then a shuffle buffer of records. So a position is a number of records, and resuming reads
these records again, without rendering or tokenising them.
"""

import dataclasses
import itertools
import random
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from datasets.table import InMemoryTable

from tunewright import RecipeError
from tunewright.recipe import Section
from tunewright.types import DataRequest, RunContext
from tunewright.words import counted
from tunewright_dataset_chat import columns, fingerprint, local_paths, media_store
from tunewright_dataset_chat.chunk_processor import ChunkProcessor
from tunewright_dataset_chat.convert import Conversion
from tunewright_dataset_chat.files import File
from tunewright_dataset_chat.media_columns import with_full_paths
from tunewright_dataset_chat.readers import Read
from tunewright_dataset_chat.source import LOOKED_AT, Source, open_sources, opened
from tunewright_dataset_chat.source_stream import Counts
from tunewright_dataset_chat.unread import Unread
from tunewright_hf.batching.row_stream import Window

WINDOW = 1000  # records per window: batches and packs are formed within it
# records tokenised in one call: token ids are large before they are in Arrow's format
_AT_ONCE = 100

#: index of its source, and a record or an error
Item = tuple[int, Read]


class Streaming:
    """Training rows of a recipe, as a tunewright_hf.batching.row_stream.RowStream. Reads the first
    records of each source when created, to detect formats. Raises RecipeError."""

    def __init__(
        self, run: RunContext, request: DataRequest, options: Any, step: ChunkProcessor
    ) -> None:
        _check(request, options)
        self._run, self._request, self._options, self._step = run, request, options, step
        self._schema = columns.schema(request.rows, request.loaded.processor is not None)
        self._given = 0  # rows yielded so far
        # place of a source → names not read in its first records
        self._unread: dict[str, Unread] = {}
        cache, _ = local_paths.cache(request.root, options.cache)
        store = media_store.folder(cache, request)
        found = [
            self._known(source)
            for source in open_sources(
                request.entries, "data", request.root, options.max_record_bytes, store
            )
        ]
        self._sources, self._conversions = (
            [source for source, _ in found],
            [conversion for _, conversion in found],
        )

    def __len__(self) -> int:
        return self._given

    @property
    def notes(self) -> list[str]:
        said = (
            (*source.notes, *self._not_read(source), self._note(source)) for source in self._sources
        )
        return [note for notes in said for note in notes]

    def identity(self) -> list[Any]:
        """Everything that rows and their order depend on. Files are identified by name and size:
        they may be too large to hash."""
        how = self._options.model_dump(include={"mixing", "stop", "shuffle_buffer"})
        shared = fingerprint.settings(self._run, self._request, self._options)
        sources = [
            [
                fingerprint.entry(source),
                source.entry.weight,
                source.title,
                [_size(file) for file in source.files],
            ]
            for source in self._sources
        ]
        return [how, shared, self._request.seed, sources]

    def windows(self, epoch: int, first: int, seen: dict[str, Any]) -> Iterator[Window]:
        """Yield windows, see RowStream."""
        reading = _Epoch(self._run, self._request, self._options, self._sources, epoch)
        found = reading.shuffled()
        deque(itertools.islice(found, first * WINDOW), maxlen=0)
        tally = Counts.from_dict(seen) if seen else Counts()
        before = reading.records
        while items := list(itertools.islice(found, WINDOW)):
            table = pa.Table.from_batches(self._made(items, tally), self._schema)
            tally.records += reading.records - before
            before = reading.records
            # with a fingerprint of ours, the library need not compute one, for which it would
            # pickle the table
            rows = datasets.Dataset(
                InMemoryTable(table.drop_columns([columns.LINE])), fingerprint="window"
            )
            self._given += len(rows)
            yield Window(rows, tally.as_dict())

    def summary(self, seen: dict[str, Any]) -> list[str]:
        """Lines about what was read and dropped, including records in the shuffle buffer."""
        tally = Counts.from_dict(seen) if seen else Counts()
        dropped = [
            f"{counted(count, 'row')} dropped: {reason}" for reason, count in tally.dropped.items()
        ]
        unread = filter(None, [tally.unread.line()])
        read = f"{counted(tally.records, 'record')} read while training"
        return [read, *tally.words(), *unread, *dropped]

    def _known(self, source: Source) -> tuple[Source, Conversion]:
        """The source with its detected format, so that no epoch detects it again."""
        looked = dataclasses.replace(source, hub=source.hub and source.hub.streamed())
        items, conversion = opened(self._run, looked, self._request)
        if conversion is None:
            raise RecipeError(
                f"{source.title} holds no record that can be read", place=f"{source.place}.path"
            )
        unread = self._unread[source.place] = Unread()
        handle, first = conversion.handle(self._run), itertools.islice(items, LOOKED_AT)
        dataclasses.replace(conversion, on_unread="warn")(self._run, handle, first, unread)
        section = Section(name=conversion.format, **conversion.options)
        return dataclasses.replace(
            looked, entry=looked.entry.model_copy(update={"format": section})
        ), conversion

    def _not_read(self, source: Source) -> list[str]:
        line = self._unread[source.place].line()
        return [f"{source.title}: {line} in the first {LOOKED_AT} records"] if line else []

    def _note(self, source: Source) -> str:
        return (
            f"{source.title}: read while training, format {source.format}"
            + " (detected)" * source.detected
        )

    def _made(self, items: list[Item], tally: Counts) -> Iterator[pa.RecordBatch]:
        """Yield the rows of these records, source by source."""
        for place, conversion in enumerate(self._conversions):
            of_source = [item for source, item in items if source == place]
            for start in range(0, len(of_source), _AT_ONCE):
                made = self._step(conversion, self._schema, of_source[start : start + _AT_ONCE])
                for error in made.errors:
                    tally.reject(error, self._options.on_bad_row == "skip")
                tally.dropped += made.dropped
                tally.changed += made.changed
                tally.unread.add(made.unread)
                if made.batch is not None:
                    table = pa.Table.from_batches([made.batch])
                    yield from with_full_paths(table, conversion.media).to_batches()


class _Epoch:
    """Records of one pass over the sources."""

    def __init__(
        self, run: RunContext, request: DataRequest, options: Any, sources: list[Source], epoch: int
    ) -> None:
        self._run, self._request, self._options, self._sources, self._epoch = (
            run,
            request,
            options,
            sources,
            epoch,
        )
        self._reading: list[Source] = []

    @property
    def records(self) -> int:
        """Records read so far, including broken ones."""
        return sum(source.records for source in self._reading)

    def shuffled(self) -> Iterator[Item]:
        """Yield all records, each at a random time after it entered the shuffle buffer."""
        chance = random.Random(f"{self._request.seed} {self._epoch}")
        mixed = (
            self._interleaved()
            if self._options.mixing == "interleave"
            else self._one_after_the_other()
        )
        size = self._options.shuffle_buffer
        buffer = list(itertools.islice(mixed, size))
        for item in mixed:
            place = chance.randrange(size)
            yield buffer[place]
            buffer[place] = item
        chance.shuffle(buffer)
        yield from buffer

    def _one_after_the_other(self) -> Iterator[Item]:
        return itertools.chain.from_iterable(
            self._items(place) for place in range(len(self._sources))
        )

    def _interleaved(self) -> Iterator[Item]:
        """Yield records of the source that is furthest behind its share."""
        weights = [source.entry.weight for source in self._sources]
        given = [0] * len(weights)
        found = [self._items(place) for place in range(len(weights))]
        left = set(range(len(weights)))  # sources that are not exhausted
        while True:
            place = min(range(len(weights)), key=lambda each: (given[each] + 1) / weights[each])
            item = next(found[place], None)
            if item is None:
                left.discard(place)
                if self._options.stop == "first" or not left:
                    return
                found[place] = self._items(place, turn=given[place])
                item = next(found[place])
            given[place] += 1
            yield item

    def _items(self, place: int, turn: int = 0) -> Iterator[Item]:
        """Yield the records of one source, its files in a different order each epoch."""
        source, files = self._sources[place], list(self._sources[place].files)
        # which counts from the start
        if source.entry.limit is None and self._request.limit is None:
            random.Random(f"{self._request.seed} {self._epoch} {place} {turn}").shuffle(files)
        reading = dataclasses.replace(source, files=files, records=0)
        self._reading.append(reading)
        found, _ = opened(self._run, reading, self._request)
        return ((place, item) for item in found)


def _check(request: DataRequest, options: Any) -> None:
    """Raise RecipeError for options that need all rows before training."""
    if request.rows not in ("text", "messages"):
        problem = f"gives text and messages, and the stage needs {request.rows}"
        raise RecipeError(problem, place="dataset.streaming", hint="leave streaming out")
    if options.validation is not None:
        problem, hint = (
            "cannot choose among rows that are not read yet",
            "name evaluation data in eval_data",
        )
        raise RecipeError(problem, place="dataset.validation", hint=hint)
    if options.prepared is not None:
        raise RecipeError(
            "holds prepared rows, which are not streamed",
            place="dataset.prepared",
            hint="leave one out",
        )
    if options.workers > 1:
        hint = "leave workers out: a thread works beside training, and its tokenizer uses all cores"
        raise RecipeError("streaming starts no processes", place="dataset.workers", hint=hint)
    for place, entry in enumerate(request.entries):
        if options.mixing == "concatenate" and entry.weight != 1:
            problem = "is a share of rows whose number is not known while they are streamed"
            raise RecipeError(
                problem, place=f"data.{place}.weight", hint="weights go with mixing: interleave"
            )


def _size(file: File) -> tuple[str, int]:
    size = file.store.info(file.path).get("size") if file.store else Path(file.path).stat().st_size
    return Path(file.path).name, int(size or 0)
