"""Layers of a cache whose rows share one time line."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from transformers.cache_utils import CacheLayerMixin, LinearAttentionLayer

__all__ = ["SlotAndStateLayer", "SlotLayer", "TimeLine"]


@dataclass
class TimeLine:
    """Columns [first, end) of `rows` rows are in use, of the room that there is."""

    first: int = 0
    end: int = 0
    rows: int = 0
    room: tuple[int, int] = (0, 0)  # rows, columns
    most: int = 0  # columns that are needed at once, at most
    starts: list[int] = field(default_factory=list)


class SlotLayer(CacheLayerMixin):
    """Keys and values (rows, heads, columns, dim), written in place. A sliding window is a view."""

    is_compileable = False
    is_croppable = False

    def __init__(self, line: TimeLine, window: int | None) -> None:
        super().__init__()
        self.line, self.window, self.is_sliding = line, window, window is not None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys, self.values = (
            x.new_zeros(self.line.room[0], x.shape[1], self.line.room[1], x.shape[3])
            for x in (key_states, value_states)
        )
        self.is_initialized = True  # before, PaliGemma's prompt is seen as a whole

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if self.keys is None:
            self.lazy_initialization(key_states, value_states)
        line = self.line
        first, end = line.first, line.end + key_states.shape[2]
        self.keys[: line.rows, :, line.end : end] = key_states
        self.values[: line.rows, :, line.end : end] = value_states
        if self.window:
            first = max(first, line.end - self.window + 1)
        return self.keys[: line.rows, :, first:end], self.values[: line.rows, :, first:end]

    def get_seq_length(self) -> int:
        return self.line.end - self.line.first

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        length = self.get_seq_length()
        offset = max(length - self.window + 1, 0) if self.window else 0
        return length + query_length - offset, offset

    def get_max_length(self) -> int:
        return self.window or -1

    def resize(self) -> None:
        """Allocate the time line's room anew, with the contents at the same columns."""
        if self.keys is not None:
            line, old = self.line, (self.keys, self.values)
            self.lazy_initialization(*old)
            for new, x in zip((self.keys, self.values), old, strict=True):
                new[: line.rows, :, line.first : line.end] = x[
                    : line.rows, :, line.first : line.end
                ]

    def shift(self, by: int) -> None:
        """Move the contents by so many columns; to the left if negative."""
        line = self.line
        for x in (self.keys, self.values):
            if x is not None:
                content = x[: line.rows, :, line.first : line.end].clone()
                x[: line.rows, :, line.first + by : line.end + by] = content


class SlotAndStateLayer(LinearAttentionLayer, SlotLayer):
    """Attention and a state in one layer, as in Falcon H1."""

    is_compileable = False

    def __init__(self, line: TimeLine, window: int | None, states: int) -> None:
        SlotLayer.__init__(self, line, window)
        LinearAttentionLayer.__init__(self, number_of_states=states)

    def lazy_initialization(self, *args: Any, **kwargs: Any) -> None:
        owner = SlotLayer if len(args) == 2 else LinearAttentionLayer
        owner.lazy_initialization(self, *args, **kwargs)
