"""What a trainer needs of rows that are read while training goes on. Apart from `streamed`, which
imports torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

__all__ = [
    "RowStream",
    "Window",
]


@dataclass(slots=True)
class Window:
    """Some of the rows of an epoch."""

    rows: Any  # datasets.Dataset in memory, in any order
    seen: dict[
        str, Any
    ]  # JSON: what was counted from the beginning up to here, in the stream's own words


@runtime_checkable
class RowStream(Protocol):
    """`types.Data.train` of data that is not stored. Its length is the number of rows that it has
    given."""

    def __len__(self) -> int: ...

    def windows(self, epoch: int, first: int, seen: dict[str, Any]) -> Iterator[Window]:
        """The windows of one epoch (0 is the first) from the number `first` on, always the same
        ones.

        seen: of the window before; {} at the very beginning. Raises RowError for a row that cannot
        be used.
        """

    def summary(self, seen: dict[str, Any]) -> list[str]:
        """What was read and left out, a line each."""
