"""Batches of rows that are read during training: nothing is stored, memory is bounded, and a
position in the stream is a few numbers.

An epoch is a sequence of windows. Within a window rows are batched as the batch sampler does in an
epoch; units that do not fill a step go into the next window. Every rank reads the whole stream and
takes its share of each pass, so steps are equal, rows disjoint, and the rows of a step independent
of the number of ranks.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from torch.utils.data import IterableDataset

from tunewright import RecipeError, RunError
from tunewright_hf.batching.batch_sampler import (
    check,
    check_longest,
    order_identity,
    row_lengths,
    units,
    units_per_pass,
)
from tunewright_hf.batching.row_stream import RowStream, Window
from tunewright_hf.batching.units import Unit

Item = TypeVar("Item")
Row = dict[str, Any]


@dataclass(slots=True)
class Place:
    """Position in a stream."""

    epoch: int = 0
    window: int = 0  # of the epoch
    units: int = 0  # of the window
    trained: int = 0  # units of all windows
    ends: list[int] = field(default_factory=list)  # units up to the end of each epoch
    seen: dict[str, Any] = field(default_factory=dict)  # `seen` of the window before


class StreamedBatches(IterableDataset[list[Row]]):
    """Replaces batch_sampler.Batches for streams: yields this rank's rows of every forward pass.
    Raises RecipeError without max_steps."""

    left_over = 0

    def __init__(
        self,
        stream: RowStream,
        training: Any,
        *,
        packing: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if training.max_steps is None:
            problem = "is missing: rows that are read while training goes on have no known number"
            raise RecipeError(
                problem, place="training.max_steps", hint="say how many steps to train"
            )
        check(training, packing)
        self.stream, self.training, self.packing, self.rank, self.world_size = (
            stream,
            training,
            packing,
            rank,
            world_size,
        )
        self.steps: int = training.max_steps
        self.per_pass = units_per_pass(training, packing, world_size)
        self.per_step = self.per_pass * training.gradient_accumulation_steps
        self.place = Place()
        self.seen: dict[str, Any] = {}  # `seen` of the current window

    def __len__(self) -> int:
        """Forward passes of each rank."""
        return self.steps * int(self.training.gradient_accumulation_steps)

    def __iter__(self) -> Iterator[list[Row]]:
        """Yield batches from `place` on, and advance it."""
        stream = self._units()
        while self.place.trained < self.steps * self.per_step:
            own = []
            for number, (table, unit, place) in enumerate(islice(stream, self.per_pass)):
                self.place = place
                if number % self.world_size == self.rank:
                    own += [table[row] for row in unit]
            yield own

    def epoch_at(self, step: int) -> float:
        """Complete epochs before the last row of this step."""
        return float(sum(end < step * self.per_step for end in self.place.ends))

    def identity(self) -> dict[str, Any]:
        """Everything that the order of batches depends on, besides the data."""
        own = {"streaming": True, "max_length": self.training.max_length}
        return own | order_identity(self.training, self.packing, self.per_step)

    def summary(self) -> list[str]:
        """Lines about what was read and dropped."""
        return self.stream.summary(self.seen)

    def state(self) -> dict[str, Any]:
        """The position, for a checkpoint."""
        return asdict(self.place)

    def go_to(self, state: dict[str, Any]) -> None:
        """Continue at a position from `state`. Earlier rows of its epoch are read again, but not
        tokenised."""
        self.place = Place(**state)
        self.seen = self.place.seen

    def _units(self) -> Iterator[tuple[Any, Unit, Place]]:
        """Yield units without end: the rows of their window, their indices in it, and the position
        after them."""
        place = self.place
        epoch, first, skipped, trained, ends, seen = (
            place.epoch,
            place.window,
            place.units,
            place.trained,
            list(place.ends),
            place.seen,
        )
        while True:
            empty = not first
            for number, window in enumerate(ahead(self.stream.windows(epoch, first, seen)), first):
                self.seen = window.seen
                made = self._together(window, epoch, number)
                empty = empty and not made
                for taken, unit in enumerate(made[skipped:], skipped + 1):
                    trained += 1
                    yield window.rows, unit, Place(epoch, number, taken, trained, list(ends), seen)
                seen, skipped = window.seen, 0
            if empty:
                reasons = "; ".join(self.stream.summary(seen))
                raise RunError(f"no row is left: {reasons}", place="data")
            epoch, first = epoch + 1, 0
            ends.append(trained)

    def _together(self, window: Window, epoch: int, number: int) -> Sequence[Unit]:
        lengths = np.asarray(row_lengths(window.rows), dtype=np.int64)
        if not len(lengths):
            return []
        check_longest(lengths, self.training)
        rng = np.random.default_rng([self.training.seed, epoch, number])
        order = rng.permutation(len(lengths))
        return units(order, lengths, self.training, self.packing, self.per_step, rng)


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the same items; a thread prepares the next one in the meantime."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item
