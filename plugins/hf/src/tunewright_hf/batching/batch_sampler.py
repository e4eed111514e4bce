"""Batch sampler: deterministic for a seed, on every machine, without reading data.

The rows of all epochs form one stream of units. A unit is a row, a pack of rows (packing), or a
whole batch (token_budget, and packs of tokens_per_batch). A step takes the next `per_device ×
accumulation × processes` units (whole batches without `per_device`), so it trains on the same rows
whatever the number of ranks. Units that do not fill a step at the end of an epoch go into the next
one.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import chain, count, islice
from typing import Any

import numpy as np

from tunewright import RecipeError, RunError
from tunewright_hf.batching.host_arrays import HostArrays
from tunewright_hf.batching.list_lengths import list_lengths
from tunewright_hf.batching.units import Units, batched, grouped, length_counts, packed

__all__ = ["row_lengths"]

WINDOW = 64  # shuffled rows that are sorted by length together, in batches
_SAMPLE = 4096  # rows from which a token budget is estimated


class Batches:
    """Batch sampler for torch's DataLoader: yields this rank's row indices of every forward pass,
    over all epochs.

    lengths: tokens of each row. training: recipe.Training. order: the rows of each epoch, as in
    `types.Data`. shared: with the other ranks of this host. Raises RecipeError if batching does not
    fit the rows.
    """

    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray,
        training: Any,
        *,
        packing: bool = False,
        rank: int = 0,
        world_size: int = 1,
        order: Callable[[int], np.ndarray] | None = None,
        shared: HostArrays | None = None,
    ) -> None:
        self.lengths, self.order = np.asarray(lengths, dtype=np.int32), order
        self.shared = shared
        self.training, self.packing = training, packing
        self.rank, self.world_size = rank, world_size
        self._check()
        self.per_pass = units_per_pass(training, packing, world_size)
        self.per_step = self.per_pass * training.gradient_accumulation_steps  # units
        self.units = lru_cache(maxsize=1)(self._units)
        self._ends: list[int] = []  # units up to the end of each epoch
        self.total_units = self._count_units()
        whole, rest = divmod(self.total_units, self.per_pass)
        self._passes = whole + (rest >= world_size)
        too_few = 0 < rest < world_size
        self.left_over = self._rows_at_the_end(rest) if too_few else 0
        if not self._passes:
            problem = f"{len(self.lengths)} rows are too few for {world_size} processes"
            raise RunError(problem, place="data")
        self.steps = math.ceil(self._passes / training.gradient_accumulation_steps)

    def __len__(self) -> int:
        """Forward passes of each rank."""
        return self._passes

    def __iter__(self) -> Iterator[list[int]]:
        return self.after(0)

    def after(self, passes: int) -> Iterator[list[int]]:
        """Row indices of the forward passes after the first `passes`."""
        start = passes * self.per_pass
        while not self._ends or self._ends[-1] <= start:
            self._count_epoch()
        epoch = bisect_right(self._ends, start)
        here = self.units(epoch).after(start - (self._ends[epoch - 1] if epoch else 0))
        later = chain.from_iterable(map(self.units, count(epoch + 1)))
        stream = islice(chain(here, later), max(0, self.total_units - start))
        while units := list(islice(stream, self.per_pass)):
            if len(units) >= self.world_size:
                yield [row for unit in units[self.rank :: self.world_size] for row in unit]

    def trained_rows(self) -> np.ndarray:
        """Indices of the rows that any rank trains on, ascending."""
        seen = np.zeros(len(self.lengths), dtype=bool)
        left = self.total_units
        for epoch in count():
            units = self.units(epoch)
            if left >= len(units):
                seen[units.rows] = True
            else:
                for unit in islice(units, left):
                    seen[unit] = True
            left -= len(units)
            if left <= 0 or seen.all():  # all long before the end, where there are many epochs
                return np.flatnonzero(seen)
        raise AssertionError("epochs do not end")

    def epoch_at(self, step: int) -> float:
        """Epochs done after this many steps."""
        done = min(step * self.per_step, self.total_units)
        while not self._ends or self._ends[-1] < done:
            self._count_epoch()
        epoch = bisect_right(self._ends, done)
        if epoch == len(self._ends):
            return float(epoch)
        start = self._ends[epoch - 1] if epoch else 0
        return epoch + (done - start) / (self._ends[epoch] - start)

    def identity(self) -> dict[str, Any]:
        """Everything that the order of batches depends on. A checkpoint with another order cannot
        be resumed."""
        own = {"rows": len(self.lengths), "tokens": int(self.lengths.sum(dtype=np.int64))}
        own |= {"max_length": self.training.max_length} if self.packing else {}
        return own | order_identity(self.training, self.packing, self.per_step)

    def _check(self) -> None:
        if not len(self.lengths):
            raise RunError("there are no rows to train on", place="data")
        check(self.training, self.packing)
        check_longest(self.lengths, self.training)

    def _count_units(self) -> int:
        """Units of the whole training."""
        training = self.training
        if training.max_steps:  # however many epochs that are: they are counted as they come
            return int(training.max_steps * self.per_step)
        while len(self._ends) < training.epochs:
            self._count_epoch()
        before = self._ends[-2] if len(self._ends) > 1 else 0
        share = training.epochs - (len(self._ends) - 1)  # fraction of the last epoch
        return before + max(1, round(share * (self._ends[-1] - before)))

    def _count_epoch(self) -> None:
        units = self._rows_of_epoch if self._is_by_row else len(self.units(len(self._ends)))
        self._ends.append((self._ends[-1] if self._ends else 0) + units)

    @cached_property
    def _rows_of_epoch(self) -> int:
        return len(self.order(0)) if self.order else len(self.lengths)

    def _rows_at_the_end(self, units: int) -> int:
        start = self._ends[-2] if len(self._ends) > 1 else 0
        last = self.units(len(self._ends) - 1)[: self.total_units - start]
        return sum(len(unit) for unit in last[len(last) - units :])

    @property
    def _is_by_row(self) -> bool:
        return not self.packing and self.training.batching != "token_budget"

    def _units(self, epoch: int) -> Units:
        if self.shared is None:
            return self._made(epoch)
        facts = [self.identity(), epoch, self.order is not None]
        return self.shared.units(facts, lambda: self._made(epoch))

    def _made(self, epoch: int) -> Units:
        """Units of one epoch in order. Depends on (seed, epoch) only."""
        rng = np.random.default_rng([self.training.seed, epoch])
        count = len(self.lengths)
        order = (
            np.array(self.order(epoch), dtype=index_type(count))  # ours, as units overwrite it
            if self.order
            else shuffled(count, rng)
        )
        return units(order, self.lengths, self.training, self.packing, self.per_step, rng)


def check(training: Any, packing: bool) -> None:
    """Raise RecipeError if batching does not fit packing."""
    if packing and training.batching == "length_grouped":
        hint = "leave batching out, or set token_budget"
        raise RecipeError(
            "packing fills its rows itself", place="training.batching: length_grouped", hint=hint
        )


def check_longest(lengths: np.ndarray, training: Any) -> None:
    """Raise RecipeError if a row does not fit into a batch of tokens_per_batch."""
    longest, budget = int(lengths.max()), training.tokens_per_batch
    if budget is not None and longest > budget:
        problem = f"is {budget}, but the longest row has {longest} tokens"
        raise RecipeError(
            problem,
            place="training.tokens_per_batch",
            hint="raise it, or lower training.max_length",
        )


def units_per_pass(training: Any, packing: bool, world_size: int) -> int:
    """Units per forward pass over all ranks: one per rank if a unit is a whole batch."""
    whole = training.tokens_per_batch or (training.batching == "token_budget" and not packing)
    return world_size * (1 if whole else training.per_device_train_batch_size)


def order_identity(training: Any, packing: bool, per_step: int) -> dict[str, Any]:
    """Everything that the choice of a step's rows depends on. How many ranks and forward passes
    they are spread over does not count. per_step: units."""
    names = ["batching", "tokens_per_batch", "seed"]
    if training.batching == "token_budget" and not (packing or training.tokens_per_batch):
        names.append("per_device_train_batch_size")  # the budget is made from it
    own = {name: getattr(training, name) for name in names}
    return own | {"packing": packing, "units_per_step": per_step}


def units(
    order: np.ndarray,
    lengths: np.ndarray,
    training: Any,
    packing: bool,
    per_step: int,
    rng: np.random.Generator,
) -> Units:
    """Group shuffled rows into units, in training order. per_step: units. order is overwritten."""
    if packing:
        made = packed(order, lengths, training.tokens_per_batch or training.max_length)
    elif training.batching == "token_budget":
        rows = training.per_device_train_batch_size
        budget = training.tokens_per_batch or budget_for(length_counts(order, lengths), rows)
        made = within_budget(order, lengths, budget)
    elif training.batching == "length_grouped":
        return grouped(order, lengths, WINDOW * per_step, per_step, rng)
    else:
        return Units(order)
    return made.shuffled(shuffled(len(made), rng))


def index_type(count: int) -> type[np.signedinteger[Any]]:
    """Type of row indices below `count`: of 4 bytes where these are enough."""
    return np.int32 if count < 2**31 else np.int64


def shuffled(count: int, rng: np.random.Generator) -> np.ndarray:
    """The numbers below `count` in random order."""
    order = np.arange(count, dtype=index_type(count))
    rng.shuffle(order)  # a permutation would be one more array
    return order


def budget_for(counts: np.ndarray, rows: int) -> int:
    """Smallest token budget that gives no more batches than `rows` rows per batch would. counts: of
    rows of each length."""
    up_to = np.cumsum(counts)  # rows of at most this length
    places = np.arange(up_to[-1] - 1, -1, -max(1, up_to[-1] // _SAMPLE))
    ordered = np.searchsorted(up_to, places, side="right").tolist()  # longest first

    def enough(budget: int) -> bool:
        place = batches = 0
        while place < len(ordered):
            place += max(1, budget // ordered[place])
            batches += 1
        return batches <= math.ceil(len(ordered) / rows)

    return bisect_left(range(rows * ordered[0]), True, key=enough)


def within_budget(order: np.ndarray, lengths: np.ndarray, budget: int) -> Units:
    """Batches of similar lengths with at most `budget` tokens each, padding included. A longer row
    forms its own batch."""
    return batched(order, lengths, max(1, int(WINDOW * budget / lengths.mean())), budget)


def row_lengths(dataset: Any) -> np.ndarray:
    """Tokens that each row of a datasets.Dataset contributes to a batch, computed in Arrow without
    reading the tokens. For a prompt with two answers: twice the prompt with the longer answer,
    because both are padded to it; for lists of documents or answers: see `list_lengths`."""
    import pyarrow.compute as pc

    if "query_ids" in dataset.column_names:
        return list_lengths(dataset, "query_ids", "document_ids")
    if "answer_ids" in dataset.column_names:
        return list_lengths(dataset, "prompt_ids", "answer_ids")
    answers = [
        name
        for name in ("chosen_ids", "rejected_ids", "completion_ids")
        if name in dataset.column_names
    ]
    names = ["prompt_ids", *answers] if "prompt_ids" in dataset.column_names else ["input_ids"]
    tables = dataset.select_columns(names).with_format("arrow").iter(10_000)
    found = [[pc.list_value_length(table[name]).to_numpy() for name in names] for table in tables]
    lengths = [np.concatenate(column) for column in zip(*found, strict=True)]
    if not lengths:
        return np.zeros(0, dtype=np.int32)
    if not answers:
        return lengths[0]
    return np.asarray(len(answers) * (lengths[0] + np.max(lengths[1:], axis=0)), dtype=np.int32)
