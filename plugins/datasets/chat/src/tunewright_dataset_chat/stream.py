"""From a source to batches of samples, in order: while a batch is tokenised, the next one is read and rendered."""

import itertools
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunewright import RecipeError, RowError
from tunewright.errors import TunewrightError
from tunewright.types import DataRequest, Row
from tunewright_dataset_chat.prepare import Done, Sample, Work
from tunewright_dataset_chat.source import Source, rows

if TYPE_CHECKING:
    from tunewright.run import Run

BATCH = 1000  # rows that are rendered, then tokenised in one call
SHOWN = 5  # bad rows that are named in the notes
UNUSABLE = "cannot be used"


@dataclass
class Tally:
    """What became of the records of a source, or of several."""

    records: int = 0
    dropped: Counter[str] = field(default_factory=Counter)  # reason → rows
    changed: Counter[str] = field(default_factory=Counter)  # what was done to rows that were kept → rows
    bad: list[str] = field(default_factory=list)  # the first rows that cannot be used, in the words of their errors
    notes: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        self.records += other.records
        self.dropped += other.dropped
        self.changed += other.changed
        self.bad = (self.bad + other.bad)[:SHOWN]
        self.notes += other.notes

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "dropped": dict(self.dropped), "changed": dict(self.changed)}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "Tally":
        return cls(**{**value, "dropped": Counter(value["dropped"]), "changed": Counter(value["changed"])})

    def words(self) -> list[str]:
        """The notes, then what was changed and what was left out, a line each."""
        changed = [f"{count} {what}" for what, count in self.changed.items() if count]
        more = self.dropped[UNUSABLE] - len(self.bad)
        rest = [f"left out: {more} more rows that cannot be used"] if more > 0 else []
        return [*self.notes, *changed, *(f"left out: {error}" for error in self.bad), *rest]


class Stream:
    """One source on its way. `open` reads as much as shows its format; then it is iterated, once."""

    def __init__(self, run: "Run", source: Source, request: DataRequest, work: Work, skip: bool) -> None:
        self.source, self.kind, self.tally = source, request.rows, Tally()
        self._work, self._skip = work, skip
        self._rows = rows(run, source, request, self._reject)
        first = list(itertools.islice(self._rows, 1))
        if not source.records:
            raise RecipeError(f"{source.title} holds no record", place=f"{source.place}.path")
        self._rows = itertools.chain(first, self._rows)

    def __iter__(self) -> Iterator[list[Sample]]:
        """Batches of samples. Raises the RowError of the first row that cannot be used, if it is not to be skipped."""
        for done in self._overlapped():
            for error in done.errors:
                self._reject(error)
            self.tally.dropped += done.dropped
            self.tally.changed += done.changed
            yield done.samples
        self.tally.records = self.source.records
        self.tally.notes.append(self.source.note)

    def _batches(self) -> Iterator[list[Row]]:
        """Lists of rows. What is raised comes after the rows that were read before."""
        while True:
            batch: list[Row] = []
            error = None
            try:
                for row in itertools.islice(self._rows, BATCH):
                    batch.append(row)
            except TunewrightError as caught:
                error = caught
            if batch:
                yield batch
            if error:
                raise error
            if not batch:
                return

    def _overlapped(self) -> Iterator[Done]:
        work = self._work
        before: tuple[Any, Future[Any]] | None = None
        with ThreadPoolExecutor(1) as thread:
            try:
                for batch in self._batches():
                    started = work.start(batch)
                    tokens = thread.submit(work.tokenise, started)
                    if before:
                        yield work.finish(before[0], before[1].result())
                    before = started, tokens
            except TunewrightError:
                if before:  # an error of an earlier row comes first
                    yield work.finish(before[0], before[1].result())
                raise
            if before:
                yield work.finish(before[0], before[1].result())

    def _reject(self, error: RowError) -> None:
        if not self._skip:
            skip = "`dataset: {name: chat, on_bad_row: skip}` leaves such rows out"
            raise RowError(error.problem, place=error.place, hint="; ".join(filter(None, [error.hint, skip])))
        self.tally.dropped[UNUSABLE] += 1
        if len(self.tally.bad) < SHOWN:
            self.tally.bad.append(str(error))
