"""Key-value cache whose rows share one time line.

All rows end at the same column, the right edge `end`; row i occupies the columns
[starts[i], end). A row is contiguous and padded on the left only, so the models' own attention
masks, sliding windows and position biases hold for it. Rows are added and removed between steps.

States of linear attention and of convolutions have no columns: a row is an index into them. They
would see padding, so such models are prefilled without any (ModelTraits.pads).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    LinearAttentionCacheLayerMixin,
)

from tunewright_hf.inference.slot_layers import SlotAndStateLayer, SlotLayer, TimeLine

__all__ = ["SlotCache"]

_BLOCK = 64  # columns are allocated in multiples of this
_STATES = ("conv_states", "recurrent_states")


class SlotCache:
    """Cache of one group of rows, with the time line that they share.

    layers: of a fresh transformers cache for the model, which show the kind of each layer.
    starts: first column of each row. room: columns to allocate at once. most: columns of the
    longest row when it is finished.
    """

    def __init__(self, layers: Sequence[Any], starts: Sequence[int], room: int, most: int) -> None:
        self._line = TimeLine(rows=len(starts), starts=list(starts), most=most)
        self._line.room = (len(starts), _blocks(min(room, most)))
        self.cache = Cache(layers=[self._layer(layer) for layer in layers])
        self._slots = [layer for layer in self.cache.layers if isinstance(layer, SlotLayer)]
        self._states = [
            layer
            for layer in self.cache.layers
            if isinstance(layer, LinearAttentionCacheLayerMixin)
        ]

    def _layer(self, layer: Any) -> Any:
        window = getattr(layer, "sliding_window", None)
        if isinstance(layer, LinearAttentionCacheLayerMixin):
            if isinstance(layer, CacheLayerMixin):
                return SlotAndStateLayer(self._line, window, layer.number_of_states)
            return layer
        return SlotLayer(self._line, window) if isinstance(layer, CacheLayerMixin) else layer

    @property
    def rows(self) -> int:
        return self._line.rows

    @property
    def length(self) -> int:
        """Columns from the first start to the right edge."""
        return self._line.end - self._line.first

    @property
    def allocated(self) -> int:
        """Rows times columns that hold memory."""
        return self._line.room[0] * self._line.room[1]

    # ---- one step --------------------------------------------------------------------------------

    def inputs(self, count: int, device: Any) -> dict[str, Tensor | None]:
        """Attention mask (B, T) and position ids (B, count) for `count` new columns.

        The mask is None where no row is padded."""
        line = self._line
        self._reserve(count)
        starts = torch.tensor(line.starts, device=device)[:, None]  # (B, 1)
        new = torch.arange(line.end, line.end + count, device=device)[None]
        mask = None
        if any(start > line.first for start in line.starts):
            columns = torch.arange(line.first, line.end + count, device=device)[None]
            mask = (columns >= starts).long()
        return {"attention_mask": mask, "position_ids": (new - starts).clamp(min=0)}

    def advance(self, count: int) -> None:
        """Count so many new columns as written, after the model's forward pass."""
        self._line.end += count

    def _reserve(self, count: int) -> None:
        """Make room for so many columns: columns left of all rows are dropped before more memory is
        taken."""
        line = self._line
        if line.end + count <= line.room[1]:
            return
        needed = line.end + count
        if line.first and (line.first >= max(_BLOCK, line.room[1] // 4) or needed > line.most):
            self._move(-line.first)
            needed = line.end + count
        if needed > line.room[1]:
            wanted = min(line.room[1] * 3 // 2, line.most)
            self._resize(line.room[0], max(needed, wanted))

    def _resize(self, rows: int, columns: int) -> None:
        self._line.room = (rows, _blocks(columns))
        for layer in self._slots:
            layer.resize()

    def _move(self, by: int) -> None:
        line = self._line
        for layer in self._slots:
            layer.shift(by)
        line.first, line.end = line.first + by, line.end + by
        line.starts = [start + by for start in line.starts]

    # ---- rows ------------------------------------------------------------------------------------

    def take(self, other: "SlotCache", slots: int) -> None:
        """Add all rows of another cache, after the own ones. slots: rows to make room for, at
        most."""
        line, theirs = self._line, other._line
        rows, length = line.rows + theirs.rows, other.length
        line.most = max(line.most, theirs.most)
        room_rows, room_columns = line.room
        if rows > room_rows:
            room_rows = max(rows, min(slots, 2 * room_rows))
        shift = max(0, length - line.end)
        if (room_rows, room_columns) != line.room or line.end + shift > room_columns:
            self._resize(room_rows, max(room_columns, line.end + shift))
        if shift:
            self._move(shift)
        mine = slice(line.rows, rows), slice(None), slice(line.end - length, line.end)
        for own, new in zip(self._slots, other._slots, strict=True):
            if new.keys is not None:
                own.keys[mine] = new.keys[: theirs.rows, :, theirs.first : theirs.end]
                own.values[mine] = new.values[: theirs.rows, :, theirs.first : theirs.end]
        for own, new in zip(self._states, other._states, strict=True):
            for name in _STATES:
                joined, added = getattr(own, name), getattr(new, name)
                for number, state in added.items():
                    if state is not None:
                        joined[number] = torch.cat([joined[number], state])
        line.starts += [start - theirs.end + line.end for start in theirs.starts]
        line.rows, line.first = rows, min(line.starts)

    def remove(self, row: int) -> None:
        """Remove a row. The last one takes its place."""
        line, last = self._line, self._line.rows - 1
        for layer in self._slots:
            if row != last and layer.keys is not None:
                for x in (layer.keys, layer.values):
                    x[row, :, line.first : line.end] = x[last, :, line.first : line.end]
        kept = [last if index == row else index for index in range(last)]
        self._select_states(kept)
        line.starts[row] = line.starts[last]
        line.starts.pop()
        line.rows, line.first = last, min(line.starts, default=line.end)

    def repeat(self, counts: Sequence[int]) -> None:
        """Repeat each row so many times, side by side."""
        line = self._line
        index = [row for row, count in enumerate(counts) for _ in range(count)]
        if len(index) == line.rows:
            return
        for layer in self._slots:
            if layer.keys is not None:
                layer.keys, layer.values = layer.keys[index], layer.values[index]
        self._select_states(index)
        line.starts = [line.starts[row] for row in index]
        line.rows, line.room = len(index), (len(index), line.room[1])

    def _select_states(self, index: list[int]) -> None:
        for layer in self._states:
            for name in _STATES:
                states = getattr(layer, name)
                for number, state in states.items():
                    if state is not None:
                        states[number] = state[index]

    # ---- contents of a row -----------------------------------------------------------------------

    def contents(self, row: int, count: int) -> list[tuple[Tensor, Tensor] | None]:
        """Copy of a row's first `count` keys and values, (heads, count, dim) for each layer."""
        start = self._line.starts[row]
        columns = slice(start, start + count)
        return [
            None
            if layer.keys is None
            else (layer.keys[row, :, columns].clone(), layer.values[row, :, columns].clone())
            for layer in self._slots
        ]

    def fill(
        self, rows: Sequence[tuple[list[tuple[Tensor, Tensor] | None], int]], end: int
    ) -> None:
        """Write the first columns of all rows of a new cache, up to the column `end`.

        rows: contents of each, and how many columns of them.
        """
        line = self._line
        for number, layer in enumerate(self._slots):
            for row, (contents, count) in enumerate(rows):
                found = contents[number] if count else None
                if found is None:
                    continue
                if layer.keys is None:
                    layer.lazy_initialization(*(x[None] for x in found))
                columns = slice(line.starts[row], line.starts[row] + count)
                layer.keys[row, :, columns], layer.values[row, :, columns] = (
                    x[:, :count] for x in found
                )
        line.end = end


def _blocks(columns: int) -> int:
    return -(-columns // _BLOCK) * _BLOCK
