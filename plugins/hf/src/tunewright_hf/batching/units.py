"""Units of an epoch in flat arrays: 100 million rows take gigabytes as lists of lists."""

from array import array
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np

__all__ = ["Unit", "Units", "batched", "grouped", "length_counts", "packed", "sorted_windows"]

Unit = list[int]  # row indices
_AT_ONCE = 2**20  # rows that are sorted at once, to bound memory
_STEP = 4096  # units that are made lists at once


class Units(Sequence[Unit]):
    """Lists of row indices, in an order.

    rows: of all units, one after the other. ends: of each unit in `rows`; None: units of one row.
    order: of the units; None: as they stand.
    """

    def __init__(
        self, rows: np.ndarray, ends: np.ndarray | None = None, order: np.ndarray | None = None
    ) -> None:
        self.rows, self.ends, self.order = rows, ends, order

    def __len__(self) -> int:
        return len(self.rows if self.ends is None else self.ends)

    def shuffled(self, order: np.ndarray) -> "Units":
        """The same units in this order."""
        return Units(self.rows, self.ends, order)

    @overload
    def __getitem__(self, place: int) -> Unit: ...
    @overload
    def __getitem__(self, place: slice) -> list[Unit]: ...
    def __getitem__(self, place: int | slice) -> Unit | list[Unit]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        if place < 0:
            place += len(self)
        if not 0 <= place < len(self):
            raise IndexError(place)
        own = place if self.order is None else int(self.order[place])
        if self.ends is None:
            return [int(self.rows[own])]
        return self.rows[self.ends[own - 1] if own else 0 : self.ends[own]].tolist()  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[Unit]:
        return self.after(0)

    def after(self, start: int) -> Iterator[Unit]:
        """Units from the one with this number on."""
        for first in range(start, len(self), _STEP):
            numbers = np.arange(first, min(first + _STEP, len(self)))
            own = numbers if self.order is None else self.order[numbers]
            if self.ends is None:
                yield from ([row] for row in self.rows[own].tolist())
                continue
            ends = self.ends[own].tolist()
            starts = np.where(own > 0, self.ends[own - 1], 0).tolist()
            for begin, end in zip(starts, ends, strict=True):
                yield self.rows[begin:end].tolist()


def sorted_windows(order: np.ndarray, lengths: np.ndarray, size: int) -> np.ndarray:
    """The rows of `order`, longest first within each window of `size` rows."""
    found = np.empty_like(order)
    whole = len(order) // size * size
    step = max(1, _AT_ONCE // size) * size
    for start in range(0, whole, step):
        part = order[start : min(start + step, whole)].reshape(-1, size)
        places = np.argsort(_descending(lengths[part]), axis=1, kind="stable")
        found[start : start + part.size] = np.take_along_axis(part, places, axis=1).ravel()
    rest = order[whole:]
    found[whole:] = rest[np.argsort(_descending(lengths[rest]), kind="stable")]
    return found


def grouped(
    order: np.ndarray, lengths: np.ndarray, window: int, per_step: int, rng: np.random.Generator
) -> Units:
    """Rows with similar lengths next to each other, step by step; steps in random order, a short
    one last. window: rows that are sorted together. order is overwritten: it is large."""
    rows = sorted_windows(order, lengths, window)
    whole = len(rows) // per_step
    steps, made = (each[: whole * per_step].reshape(whole, per_step) for each in (rows, order))
    np.take(steps, rng.permutation(whole), axis=0, out=made, mode="clip")  # others would copy
    order[whole * per_step :] = rows[whole * per_step :]
    return Units(order)


def batched(order: np.ndarray, lengths: np.ndarray, window: int, budget: int) -> Units:
    """Batches of similar lengths with at most `budget` tokens each, padding included. A longer row
    forms its own batch. window: rows that are sorted together."""
    rows = sorted_windows(order, lengths, window)
    ends, size, longest = array("q"), 0, 0  # rows of the open batch, and its longest
    for start in range(0, len(rows), window):
        found = lengths[rows[start : start + window]].tolist()
        place = 0
        while place < len(found):  # rows of a window get shorter: as many as fit at once
            first = found[place]
            if size:  # of the window before
                longest = max(longest, first)
                taken = budget // longest - size if longest else len(found)
                if taken <= 0:
                    ends.append(start + place)
                    size = 0
                    continue
            else:
                longest, taken = first, (budget // first or 1) if first else len(found)
            place += taken
            if place < len(found):
                ends.append(start + place)
                size = 0
            else:
                size += taken - (place - len(found))
    ends.append(len(rows))
    return Units(rows, np.frombuffer(ends, dtype=np.int64))


def _descending(lengths: np.ndarray) -> np.ndarray:
    """Sort keys for the longest first: of 16 bits where they fit, which numpy sorts in linear
    time."""
    longest = int(lengths.max(initial=0))
    return longest - lengths if longest >= 2**16 else (longest - lengths).astype(np.uint16)


def packed(order: np.ndarray, lengths: np.ndarray, capacity: int) -> Units:
    """Pack rows into at most `capacity` tokens: longest first, each into the fullest pack that has
    room (best-fit decreasing). A row of capacity or more forms its own pack. Rows of equal length
    are taken in `order`, which is overwritten: it is large."""
    counts = length_counts(order, lengths)
    rows = _longest_first(order, lengths, counts)
    places, ends = _places(_Packs(counts, capacity, order))
    placed = np.empty_like(rows)
    for first in range(0, len(rows), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        placed[places[part]] = rows[part]
    return Units(placed, ends)


def length_counts(order: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Number of rows of `order` with each length."""
    size = int(lengths.max(initial=0)) + 1
    counts = np.zeros(size, dtype=np.int64)
    for first in range(0, len(order), _AT_ONCE):
        counts += np.bincount(lengths[order[first : first + _AT_ONCE]], minlength=size)
    return counts


def _places(packs: "_Packs") -> tuple[np.ndarray, np.ndarray]:
    """(place of each row among the rows of all packs, end of each pack). The first is in the memory
    of `packs.of`."""
    sizes = packs.sizes[: packs.count]
    ends = np.cumsum(sizes, dtype=packs.of.dtype)
    starts = ends - sizes
    for first in range(0, len(packs.of), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        packs.of[part] = starts[packs.of[part]] + packs.place[part]
    return packs.of, ends


def _longest_first(order: np.ndarray, lengths: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Rows of `order`, longest first and otherwise as they stand: a counting sort, piece by piece.
    counts: rows of each length."""
    rows = np.empty_like(order)
    starts = _longer(counts)  # place of the next row of each length
    for first in range(0, len(order), _AT_ONCE):
        part = order[first : first + _AT_ONCE]
        part = part[np.argsort(_descending(lengths[part]), kind="stable")]
        own = lengths[part]
        here = np.bincount(own, minlength=len(counts))
        rows[(starts - _longer(here))[own] + np.arange(len(part))] = part
        starts += here
    return rows


def _longer(counts: np.ndarray) -> np.ndarray:
    """Of each length, the rows that are longer. counts: rows of each length."""
    at_least: np.ndarray = counts[::-1].cumsum()[::-1]
    return at_least - counts


class _Packs:
    """Packs that rows are placed into, longest first. counts: rows of each length. capacity:
    tokens. of: memory for a number of each row.

    of: pack of each row. place: its number in it. sizes: rows of each of `count` packs, then zeros.

    Rows of one length that go into packs with the same room are placed at once: a pack takes as
    many as fit, before the next one is the fullest.
    """

    def __init__(self, counts: np.ndarray, capacity: int, of: np.ndarray) -> None:
        self.capacity, self.of = capacity, of
        # a pack has at most as many rows as tokens
        small = capacity < 2**16 and not counts[:1].any()
        self.place, self.sizes = (
            np.zeros(len(of), np.uint16 if small else np.int32) for _ in range(2)
        )
        self.count = 0
        # free tokens → packs
        self._with_room: list[list[np.ndarray]] = [[] for _ in range(capacity + 1)]
        self._free = 0  # bit n is set if a pack with n free tokens exists
        start = 0
        for length in np.flatnonzero(counts)[::-1].tolist():
            self._place(start, start + int(counts[length]), length)
            start += int(counts[length])

    def _place(self, start: int, end: int, length: int) -> None:
        """Place the rows from start to end, which have this length."""
        while start < end:
            if fitting := self._free >> length:
                room = length + (fitting & -fitting).bit_length() - 1
                stack = self._with_room[room]
                last = stack.pop()  # packs that came last are taken first
                each = room // length if length else end - start
                taken = last[::-1][: -(-(end - start) // each)]
                if len(taken) < len(last):
                    stack.append(last[: len(last) - len(taken)])
                self._free &= ~(bool(not stack) << room)
            else:
                room = max(self.capacity, length)
                each = room // length if length else end - start
                new = -(-(end - start) // each)
                taken = np.arange(self.count, self.count + new, dtype=np.int32)
                self.count += new
            rows = min(end - start, len(taken) * each)
            whole, partly = divmod(rows, each)
            for packs, filled in ((taken[:whole], each), (taken[whole:], partly)):
                if filled and len(packs):
                    here = slice(start, start + len(packs) * filled)
                    self.of[here] = np.repeat(packs, filled)
                    before = np.repeat(self.sizes[packs], filled)
                    self.place[here] = before + np.tile(
                        np.arange(filled, dtype=before.dtype), len(packs)
                    )
                    self.sizes[packs] += filled
                    start = here.stop
                if (left := room - filled * length) and len(packs):
                    self._with_room[left].append(packs)
                    self._free |= 1 << left
