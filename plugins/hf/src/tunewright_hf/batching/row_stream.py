"""Protocol for rows that are read during training. Separate from `streaming_sampler`, which imports
torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

__all__ = [
    "RowStream",
    "Window",
]


@dataclass(slots=True)
class Window:
    """A part of an epoch's rows."""

    rows: Any  # datasets.Dataset in memory, in any order
    # JSON: counts from the beginning up to here, in the stream's own format
    seen: dict[str, Any]


@runtime_checkable
class RowStream(Protocol):
    """`types.Data.train` of streamed data. Its length is the number of rows yielded so far."""

    def __len__(self) -> int: ...

    def windows(self, epoch: int, first: int, seen: dict[str, Any]) -> Iterator[Window]:
        """Yield the windows of an epoch (0 is the first) from window `first` on. Deterministic.

        seen: that of the window before; {} at the very beginning. Raises RowError for a row that
        cannot be used.
        """

    def summary(self, seen: dict[str, Any]) -> list[str]:
        """Lines about what was read and dropped."""
