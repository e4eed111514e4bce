"""From a source to batches of samples, in order, here or in workers."""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tunewright import RowError
from tunewright.errors import TunewrightError
from tunewright.types import DataRequest
from tunewright_dataset_chat.chunk_processor import ChunkProcessor, ChunkResult, collected_once
from tunewright_dataset_chat.readers import Read
from tunewright_dataset_chat.samples import Done, Sample
from tunewright_dataset_chat.source import Source, opened
from tunewright_dataset_chat.unread import Unread
from tunewright_dataset_chat.workers import Workers

if TYPE_CHECKING:
    from tunewright.run import Run

BATCH = 1000  # records that are read, then converted, rendered and tokenised in one go
SHOWN = 5  # bad rows that are named in the notes
UNUSABLE = "cannot be used"


@dataclass
class Counts:
    """What became of the records of a source, or of several."""

    records: int = 0
    dropped: Counter[str] = field(default_factory=Counter)  # reason → rows
    changed: Counter[str] = field(
        default_factory=Counter
    )  # what was done to rows that were kept → rows
    bad: list[str] = field(
        default_factory=list
    )  # the first rows that cannot be used, in the words of their errors
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
        """Count a row that cannot be used. Raises RowError where it is not to be skipped."""
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
        """The notes, then what was changed and what was left out, a line each."""
        changed = [f"{count} {what}" for what, count in self.changed.items() if count]
        more = self.dropped[UNUSABLE] - len(self.bad)
        rest = [f"left out: {more} more rows that cannot be used"] if more > 0 else []
        return [*self.notes, *changed, *(f"left out: {error}" for error in self.bad), *rest]


class Stream:
    """One source on its way. What is read at once shows its format; then it is iterated, once."""

    def __init__(
        self, run: "Run", source: Source, request: DataRequest, step: ChunkProcessor, skip: bool
    ) -> None:
        """Raises RecipeError as `source.opened` does."""
        self.source, self.tally, self._run = source, Counts(), run
        self._step, self._skip = step, skip
        self._records, self._conversion = opened(run, source, request)

    def __iter__(self) -> Iterator[list[Sample]]:
        """Batches of samples. Raises the RowError of the first row that cannot be used, if it is
        not to be skipped."""
        with collected_once():
            for items in self._chunks():
                done = self._step.samples(self._conversion, items)
                self._count(done)
                yield done.samples
        self._end()

    def batches(self, schema: pa.Schema | None, workers: Workers) -> Iterator[ChunkResult]:
        """The same as Arrow record batches, all of one schema. Workers begin with the second chunk,
        so that small sources do not start them, and only where the columns are known."""
        with collected_once():
            for made in self._made(schema, workers):
                self._run.check_stop()
                self._count(made)
                yield made
        self._end()

    def _made(self, schema: pa.Schema | None, workers: Workers) -> Iterator[ChunkResult]:
        chunks = self._chunks()
        for items in chunks:
            several = workers.count > 1 and len(items) == BATCH
            if several:
                workers.start()
            made = self._step(self._conversion, schema, items)
            schema = made.batch.schema if made.batch else schema
            yield made
            if several and schema:
                tasks = ((self._conversion, schema, items) for items in chunks)
                yield from workers.map(tasks, self._step)

    def _chunks(self) -> Iterator[list[Read]]:
        """Lists of records and errors. What is raised comes after what was read before."""
        while True:
            items: list[Read] = []
            error = None
            try:
                items.extend(itertools.islice(self._records, BATCH))
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
