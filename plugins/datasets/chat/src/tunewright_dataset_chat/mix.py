"""Rows of each epoch, as indices: nothing is copied."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tunewright import RecipeError

_VALIDATION = 1  # separate random stream


@dataclass(frozen=True)
class Mix:
    """Callable: epoch (0 is the first) → row indices in order. Depends on (seed, epoch) only.

    Rows of all sources are numbered consecutively. A source that is oversampled repeats each row
    equally often, give or take one; one that is undersampled continues in the next epoch where it
    stopped, so that all rows are used before one repeats.
    """

    sizes: tuple[int, ...]  # rows of each source
    counts: tuple[int, ...]  # rows of each source per epoch
    even: bool  # spread every source evenly over the epoch; otherwise shuffle all together
    seed: int

    def __call__(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, epoch])
        starts = np.cumsum([0, *self.sizes])
        chosen = [starts[source] + self._turn(source, epoch) for source in range(len(self.sizes))]
        if not self.even:
            return rng.permutation(np.concatenate(chosen))
        # row j of c is placed randomly in part j of c equal parts of the epoch
        places = [(np.arange(count) + rng.random(count)) / count for count in self.counts]
        return np.concatenate(chosen)[np.argsort(np.concatenate(places), kind="stable")]

    def _turn(self, source: int, epoch: int) -> np.ndarray:
        """Rows of one source for this epoch: the next `count` of an infinite sequence of its
        shuffles."""
        size, count = self.sizes[source], self.counts[source]
        first, last = epoch * count // size, -(-(epoch + 1) * count // size)
        shuffles = [
            np.random.default_rng([self.seed, source, turn]).permutation(size)
            for turn in range(first, last)
        ]
        start = epoch * count - first * size
        return np.concatenate(shuffles)[start : start + count]


@dataclass(frozen=True)
class Ascending:
    """Callable: epoch → row indices, smallest keys first; rows of equal keys in random order.

    keys: a number of each row, such as its length. base: the rows of each epoch; None: all once.
    """

    keys: np.ndarray
    base: Mix | None
    seed: int

    def __call__(self, epoch: int) -> np.ndarray:
        if self.base is None:
            rows = np.random.default_rng([self.seed, epoch]).permutation(len(self.keys))
        else:
            rows = self.base(epoch)
        return rows[np.argsort(self.keys[rows], kind="stable")]


@dataclass(frozen=True)
class Given:
    """Callable: epoch → row indices in the order of the sources.

    rows: how many there are. base: the rows of each epoch; None: all once.
    """

    rows: int
    base: Mix | None

    def __call__(self, epoch: int) -> np.ndarray:
        return np.arange(self.rows) if self.base is None else np.sort(self.base(epoch))


def counts(
    sizes: Sequence[int], weights: Sequence[float], mixing: str, stop: Literal["first", "all"]
) -> list[int]:
    """Rows of each source per epoch, at least one each.

    concatenate: its rows times its weight. interleave: shares by weight, until the first source is
    exhausted (`first`), or until all are (`all`; the others then repeat).
    """
    if mixing == "concatenate":
        return [max(1, round(size * weight)) for size, weight in zip(sizes, weights, strict=True)]
    shares = [weight / sum(weights) for weight in weights]
    totals = [size / share for size, share in zip(sizes, shares, strict=True)]
    total = min(totals) if stop == "first" else max(totals)
    return [max(1, round(total * share)) for share in shares]


def split(records: np.ndarray, validation: float | int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row indices for training and validation, both ascending. Rows of one record stay together.

    records: record number of each row, ascending. validation: a share of all rows, or their number.
    Raises RecipeError if one side would be empty.
    """
    wanted = round(validation * len(records)) if validation < 1 else int(validation)
    _, first, sizes = np.unique(records, return_index=True, return_counts=True)
    order = np.random.default_rng([seed, _VALIDATION]).permutation(len(first))
    taken = order[: np.searchsorted(np.cumsum(sizes[order]), wanted) + 1] if wanted else order[:0]
    held = np.isin(records, records[first[taken]])
    if held.all() or not held.any():
        problem = (
            f"leaves nothing {'to train on' if held.any() else 'to validate on'} of "
            f"{len(records)} rows"
        )
        raise RecipeError(problem, place="dataset.validation")
    return np.flatnonzero(~held), np.flatnonzero(held)
