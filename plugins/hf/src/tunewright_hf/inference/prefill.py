"""Computation of prompts, in parts, before their rows join the others."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tunewright_hf.inference.prefixes import PrefixStore
from tunewright_hf.inference.rows import Row, Score
from tunewright_hf.inference.runner import Group, ModelRunner, NativeCache
from tunewright_hf.inference.sampling import scores_of
from tunewright_hf.inference.slots import SlotCache

__all__ = ["Prefill", "next_part"]

_PART = 0.6  # of the prompt tokens of a step: the largest part
_ROOM = 64  # columns for the first tokens of the answers
_WHOLE = 0.25  # of the prompt tokens of a step: what is not worth several parts


def next_part(lengths: Sequence[int], later: int, tokens: int) -> int:
    """Tokens of the next part of the waiting prompts, where no row generates.

    lengths: tokens of each prompt. later: prompts at the end, fewer than half of all, that are
    computed after the others, so that most rows have their first tokens early. Both have the fewest
    parts of a limited size, all of one size: their first tokens come earliest on average. tokens:
    prompt tokens of a step.
    """
    if sum(lengths) <= _WHOLE * tokens:
        return math.ceil(_WHOLE * tokens)
    first = sum(lengths[:-later] or lengths)
    return math.ceil(first / max(1, math.ceil(first / (_PART * tokens))))


class Prefill:
    """Prompts that are computed together, padded on the left. Equal prompts are computed once.

    rows: all of them, more than the prompts where some are equal. A prompt with media comes without
    others, and is computed in one pass up to the end of its media. reused: tokens that were found
    in `prefixes`. alone: no other rows may join them.
    """

    def __init__(
        self, runner: ModelRunner, rows: list[Row], prefixes: PrefixStore | None, *, alone: bool
    ) -> None:
        self.rows, self._runner = rows, runner
        equal: dict[tuple[Any, ...], list[Row]] = {}
        for row in rows:
            equal.setdefault((row.adapter, *row.keys), []).append(row)
        self._equal = list(equal.values())
        first = [group[0] for group in self._equal]
        lengths = [len(row.prompt) for row in first]
        width = max(lengths)
        self._ids = torch.tensor(  # (B, T)
            [[0] * (width - len(row.prompt)) + row.prompt for row in first]
        )
        self._done, self.reused = 0, 0
        most = max(map(runner.length, rows))
        cache: SlotCache | NativeCache
        if runner.together:
            starts = [width - length for length in lengths]
            cache = SlotCache(runner.layers(), starts, runner.virtual_tokens + width + _ROOM, most)
            if prefixes is not None:
                self._reuse(cache, first, starts, prefixes)
        else:
            cache = runner.native_cache()
        self._media = None if self._done else first[0].media
        self._whole = alone or not runner.pads or self._media is not None
        self.group = Group(first, cache, alone=alone)

    def _reuse(
        self, cache: SlotCache, rows: list[Row], starts: Sequence[int], prefixes: PrefixStore
    ) -> None:
        """Fill in what earlier rows have computed, up to the column where the first row goes on."""
        found = [
            prefixes.find(row.adapter, row.keys, row.media.end if row.media else 0) for row in rows
        ]
        end = min(start + count for start, (_, count) in zip(starts, found, strict=True))
        used = [max(0, end - start) for start in starts]
        if any(used):
            contents = [contents for contents, _ in found]
            cache.fill(list(zip(contents, used, strict=True)), end)
            self._done, self.reused = end, sum(used)

    @property
    def left(self) -> int:
        """Tokens that are still to be computed, padding included."""
        return (self._ids.shape[1] - self._done) * len(self._ids)

    def step(self, tokens: int) -> Tensor | None:
        """Compute up to so many tokens. After the last: the logits (B, V) that follow the prompt of
        each of the group's rows, which are then all rows."""
        ids = self._ids
        if not self._done:
            self._runner.begin(self.group)
        count = ids.shape[1] - self._done
        if not self._whole:
            count = min(count, max(1, tokens // len(ids)))
        scored = self.group.rows[0].prompt_logprobs is not None
        logits = self._runner.forward(
            self.group,
            ids[:, self._done : self._done + count],
            keep=0 if scored else 1,
            media=self._media,
        )
        if scored:
            self._score(self.group.rows[0], logits[0])
        self._done += count
        if self._done < ids.shape[1]:
            return None
        for row in self.rows:
            if row.media is not None:  # its tensors are large, and not needed again
                row.media = replace(row.media, inputs={}, positions=None)
        counts = [len(rows) for rows in self._equal]
        if isinstance(self.group.cache, SlotCache):
            self.group.cache.repeat(counts)
        self.group.rows = [row for rows in self._equal for row in rows]
        index = [number for number, count in enumerate(counts) for _ in range(count)]
        return logits[index, -1]

    def _score(self, row: Row, logits: Tensor) -> None:
        """Score the tokens of a prompt that follow these logits (T, V)."""
        if not row.prompt_scores:
            row.prompt_scores.append(Score(row.prompt[0], None))
        tokens = row.prompt[self._done + 1 : self._done + 1 + len(logits)]
        if tokens:
            assert row.prompt_logprobs is not None
            row.prompt_scores += scores_of(logits[: len(tokens)], tokens, row.prompt_logprobs)
