"""Stream of samples from a source, in order, prepared in this process or in workers."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from tunewright import RowError
from tunewright.errors import TunewrightError
from tunewright.types import DataRequest, RunContext
from tunewright.words import counted
from tunewright_dataset_chat.chunk_processor import ChunkProcessor, ChunkResult, collected_once
from tunewright_dataset_chat.readers import Read
from tunewright_dataset_chat.samples import Done, Sample
from tunewright_dataset_chat.source import Source, opened
from tunewright_dataset_chat.unread import Unread
from tunewright_dataset_chat.workers import Workers

BATCH = 1000  # records that are read, converted, rendered and tokenised together, at most
CHARACTERS = 2**21  # of texts in a chunk: more take seconds, in which nobody looks for a stop
BATCH_OF_BYTES = 50  # records of those that may hold media themselves
SHOWN = 5  # bad rows listed in the notes
UNUSABLE = "cannot be used"


@dataclass
class Counts:
    """Counts of the records of one or several sources."""

    records: int = 0
    dropped: Counter[str] = field(default_factory=Counter)  # reason → rows
    # how kept rows were changed → rows
    changed: Counter[str] = field(default_factory=Counter)
    # errors of the first unusable rows
    bad: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unread: Unread = field(default_factory=Unread)

    def add(self, other: "Counts") -> None:
        self.records += other.records
        self.dropped += other.dropped
        self.changed += other.changed
        self.bad = (self.bad + other.bad)[:SHOWN]
        self.notes += other.notes
        self.unread.add(other.unread)

    def reject(self, error: RowError, skip: bool) -> None:
        """Count an unusable row. Raises RowError unless it is to be skipped."""
        if not skip:
            hint = "`dataset: {name: chat, on_bad_row: skip}` leaves such rows out"
            raise RowError(
                error.problem, place=error.place, hint="; ".join(filter(None, [error.hint, hint]))
            )
        self.dropped[UNUSABLE] += 1
        if len(self.bad) < SHOWN:
            self.bad.append(str(error))

    def as_dict(self) -> dict[str, Any]:
        changed = {"dropped": dict(self.dropped), "changed": dict(self.changed)}
        return {**vars(self), **changed, "unread": self.unread.as_dict()}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "Counts":
        changed = {name: Counter(value[name]) for name in ("dropped", "changed")}
        return cls(**{**value, **changed, "unread": Unread.from_dict(value["unread"])})

    def words(self) -> list[str]:
        """Notes, then changed and dropped rows, one line each."""
        changed = [f"{what}: {count:,}" for what, count in self.changed.items() if count]
        more = self.dropped[UNUSABLE] - len(self.bad)
        rest = [f"left out: {counted(more, 'more row')} that cannot be used"] if more > 0 else []
        return [*self.notes, *changed, *(f"left out: {error}" for error in self.bad), *rest]


class Stream:
    """One source being read. Some records are read at once to detect the format; it can be iterated
    once."""

    def __init__(
        self,
        run: RunContext,
        source: Source,
        request: DataRequest,
        step: ChunkProcessor,
        skip: bool,
    ) -> None:
        """Raise RecipeError as `source.opened` does."""
        self.source, self.tally, self._run = source, Counts(), run
        self._step, self._skip = step, skip
        self._records, self._conversion = opened(run, source, request)
        found = self._conversion
        with_bytes = found is not None and found.padded and found.media.store is not None
        self._batch = BATCH_OF_BYTES if with_bytes else BATCH

    def __iter__(self) -> Iterator[list[Sample]]:
        """Yield batches of samples. Raises the first RowError unless bad rows are skipped."""
        with collected_once():
            for items in self._chunks():
                done = self._step.samples(self._conversion, items)
                self._count(done)
                yield done.samples
        self._end()

    def batches(self, schema: pa.Schema | None, workers: Workers) -> Iterator[ChunkResult]:
        """Yield Arrow record batches with one schema. Workers start with the second chunk, so that
        small sources start none, and only if the columns are known."""
        with collected_once():
            for made in self._made(schema, workers):
                self._run.check_stop()
                self._count(made)
                yield made
        self._end()

    def _made(self, schema: pa.Schema | None, workers: Workers) -> Iterator[ChunkResult]:
        chunks = self._chunks()
        for items in chunks:
            several = workers.count > 1 and _is_full(items, self._batch)
            if several:
                workers.start()
            made = self._step(self._conversion, schema, items)
            schema = made.batch.schema if made.batch else schema
            yield made
            if several and schema:
                tasks = ((self._conversion, schema, items) for items in chunks)
                yield from workers.map(tasks, self._step)

    def _chunks(self) -> Iterator[list[Read]]:
        """Yield lists of records and errors. An exception is raised after everything read before
        it."""
        while True:
            items: list[Read] = []
            error, left = None, CHARACTERS
            try:
                while len(items) < self._batch and left > 0 and (item := next(self._records, None)):
                    items.append(item)
                    left -= _characters(item)
            except TunewrightError as caught:
                error = caught
            if items:
                yield items
            if error:
                raise error
            if not items:
                return

    def _count(self, done: Done | ChunkResult) -> None:
        for error in done.errors:
            self.tally.reject(error, self._skip)
        self.tally.dropped += done.dropped
        self.tally.changed += done.changed
        self.tally.unread.add(done.unread)

    def _end(self) -> None:
        self.tally.records = self.source.records
        if line := self.tally.unread.line():
            self.tally.notes.append(f"{self.source.title}: {line}")
        self.tally.notes.append(self.source.note)


def _is_full(items: list[Read], size: int) -> bool:
    """Whether more may follow this chunk. size: records of a chunk."""
    return len(items) == size or sum(map(_characters, items)) >= CHARACTERS


def _characters(item: Read) -> int:
    """Length of the texts of a record."""
    total = 0
    values: list[Any] = [] if isinstance(item, RowError) else [item[1]]
    while values:
        value = values.pop()
        if isinstance(value, str):
            total += len(value)
        elif isinstance(value, dict):
            values.extend(value.values())
        elif isinstance(value, list):
            values.extend(value)
    return total
