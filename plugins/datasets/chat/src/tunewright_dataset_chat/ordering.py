"""Order of examples: numbers of records, and combinations of `order` and `mixing` with other fields
that are refused."""

import difflib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tunewright import Problem, RowError
from tunewright_dataset_chat.readers import Read
from tunewright_dataset_chat.unread import listed

if TYPE_CHECKING:
    from tunewright.check import Resolved
    from tunewright.resolved import ResolvedStage
    from tunewright.yamlio import Path_


def problems(at: "Path_", options: Any, recipe: "Resolved") -> Iterator[Problem]:
    """Problems of a recipe whose dataset has these options. at: of the dataset's section."""
    if options.order != "shuffled":
        yield from _of_order((*at, "order"), options)
        for stage in recipe.stages:
            yield from _of_batching(options.order, stage)
    if options.mixing == "online":
        if options.streaming:
            problem = "online needs all sources before training, and streaming reads them later"
            yield Problem((*at, "mixing"), problem, "set interleave")
        for stage in recipe.stages:
            yield from _of_online_mixing((*at, "mixing"), stage)


def _of_order(at: "Path_", options: Any) -> Iterator[Problem]:
    if options.streaming:
        problem = (
            f"{options.order} needs all examples before training, and streaming reads them later"
        )
        hint = "sort the source, and set shuffle_buffer: 1 and training.batching: random"
        yield Problem(at, problem, hint)
    elif options.mixing == "online" or (options.mixing, options.order) == ("interleave", "given"):
        problem = f"{options.order} does not go with mixing {options.mixing}, which orders sources"
        yield Problem(at, problem, "set mixing: concatenate")


def _of_batching(order: str, stage: "ResolvedStage") -> Iterator[Problem]:
    if stage.training.batching != "random":
        problem = (
            f"is {stage.training.batching}, which sorts and shuffles examples: dataset.order: "
            f"{order} would be lost"
        )
        yield Problem(stage.place("batching"), problem, "set random")
    if getattr(stage.choice.options, "packing", False):
        problem = f"chooses the order of examples: dataset.order: {order} would be lost"
        yield Problem((*stage.choice.at, "packing"), problem, "leave it out")


def _of_online_mixing(at: "Path_", stage: "ResolvedStage") -> Iterator[Problem]:
    name = stage.choice.entry.name
    if stage.choice.plugin.rows == "prompts":
        problem = f"online goes by the loss, which says nothing of the prompts of {name}"
        yield Problem(at, problem, "set interleave")
    if len(stage.data) < 2:
        problem = f"online chooses among sources, and stage {name} has {len(stage.data)}"
        yield Problem(at, problem, "set concatenate, or list more sources")
    if any(entry.weight != 1 for entry in stage.data):
        problem = "online finds the shares of sources itself, and a source has a weight"
        yield Problem(at, problem, "leave weight out, or set interleave")
    if stage.training.dataloader_workers:
        problem = "prepares batches ahead, and mixing online chooses each after the step before"
        yield Problem(stage.place("dataloader_workers"), problem, "leave it out")


def numbered(items: list[Read], column: str, numbers: dict[str, float]) -> list[Read]:
    """Records, with errors in place of those without a number in the column. numbers: gets them, by
    the place of their record."""
    return [item if isinstance(item, RowError) else _read(item, column, numbers) for item in items]


def _read(item: Any, column: str, numbers: dict[str, float]) -> Read:
    origin, record = item
    names = list(record) if isinstance(record, dict) else []
    if column not in names:
        near = difflib.get_close_matches(column, names, 1)
        hint = f"did you mean {listed(near)}?" if near else "dataset.order_by names it"
        return RowError(f"has no column {listed([column])!r}", place=str(origin), hint=hint)
    number = _number(record[column])
    if number is None:
        found = listed([str(record[column])])
        problem = f"column {listed([column])!r} is {found}, expected a number"
        return RowError(problem, place=str(origin), hint="dataset.order_by orders by it")
    numbers[str(origin)] = number
    return item  # type: ignore[no-any-return]


def _number(value: Any) -> float | None:
    """A finite number, or its text as a CSV file has it; else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
