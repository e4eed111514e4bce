"""Numbers of records, by which examples are ordered."""

import difflib
import math
from typing import Any

from tunewright import RowError
from tunewright_dataset_chat.readers import Read
from tunewright_dataset_chat.unread import listed


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
