"""Scheduler of many answers: at every step rows leave the batch, and waiting ones join it.

Not thread-safe, and without a thread of its own: only the caller of `step` may use the model.
"""

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from tunewright.inference import FinishReason
from tunewright.types import Embedding
from tunewright_hf.inference.prefill import Prefill, next_part
from tunewright_hf.inference.prefixes import PrefixStore
from tunewright_hf.inference.rows import Row
from tunewright_hf.inference.runner import Group, ModelRunner
from tunewright_hf.inference.sampling import next_tokens
from tunewright_hf.inference.slots import SlotCache

__all__ = ["Scheduler"]

_APART = 4  # lengths that differ by this factor are computed apart: padding costs more than a pass
_IDLE = 4  # times the prompt tokens of a step, where no row generates
_SHORT = 256  # columns up to which all lengths are computed together


class Scheduler:
    """Generates answers with a model in evaluation mode.

    slots: answers at once. prefill_tokens: prompt tokens, padding included, that are computed
    between two steps of the other rows. cache_tokens: rows times columns of the cache, at most;
    None: no limit. reuse_tokens: tokens of earlier rows that are kept, for prompts that begin
    alike; 0 where the weights change between steps. adapters: rows name PEFT's adapters.
    """

    def __init__(
        self,
        model: Any,
        *,
        slots: int = 32,
        prefill_tokens: int = 2048,
        cache_tokens: int | None = None,
        reuse_tokens: int = 0,
        adapters: bool = False,
    ) -> None:
        self._runner = ModelRunner(model, adapters=adapters)
        self._slots, self._prefill_tokens = slots, prefill_tokens
        self._cache_tokens, self._prefixes = cache_tokens, PrefixStore(reuse_tokens)
        self._reuses = bool(reuse_tokens) and self._runner.pads
        self.waiting: deque[Row] = deque()
        self._groups: list[Group] = []
        self._prefill: Prefill | None = None
        self._any_cancelled = False
        self.reused_tokens = 0

    def add(self, rows: Iterable[Row]) -> None:
        """Have rows wait for a slot."""
        self.waiting.extend(rows)

    def cancel(self, row: Row) -> None:
        """End a row at the beginning of the next step. The only method for other threads."""
        row.cancelled = self._any_cancelled = True

    @property
    def running(self) -> int:
        """Rows that hold a slot."""
        prefilled = len(self._prefill.rows) if self._prefill else 0
        return prefilled + sum(len(group.rows) for group in self._groups)

    @property
    def cache_tokens(self) -> int:
        """Rows times columns that are allocated."""
        groups = [*self._groups, *([self._prefill.group] if self._prefill else [])]
        return sum(group.cache.allocated for group in groups)

    def step(self) -> bool:
        """Generate one token of every running row, and compute a part of waiting prompts.

        An error of the model ends all rows that run; the scheduler goes on with the others. Returns
        whether there is more to do.
        """
        try:
            return self._step()
        except Exception as error:
            self._prefixes.clear()
            self._clear("error", _said(error))
            return bool(self.waiting)

    def _step(self) -> bool:
        self._drop_cancelled()
        for group in self._groups:
            ids = torch.tensor([[row.tokens[-1]] for row in group.rows])  # (B, 1)
            self._push(group, self._runner.forward(group, ids)[:, -1])
        self._groups = [group for group in self._groups if group.rows]
        self._compute_prompts(is_idle=not self._groups)
        self._groups = [group for group in self._groups if group.rows]
        return bool(self._groups or self._prefill or self.waiting)

    def run(self) -> None:
        """Step until all rows have ended. Raises what the model raises."""
        while self._step():
            pass

    def embed(self, ids: list[int], adapter: str | None, embedding: Embedding) -> list[float]:
        """Vector of a text."""
        return self._runner.embed(ids, adapter, embedding)

    def score(self, ids: list[int], media: Any) -> float:
        """Score of a text, from a model with the head `score`. media: PromptMedia or None."""
        return self._runner.score(ids, media)

    def abort(self, reason: FinishReason, error: str | None = None) -> None:
        """End all rows, waiting ones too."""
        waiting = list(self.waiting)
        self.waiting.clear()
        self._clear(reason, error)
        for row in waiting:
            row.end(reason, error)

    def _compute_prompts(self, is_idle: bool) -> None:
        """Compute waiting prompts: more of them where no other row waits for its next token, and
        then in small parts, so that the first rows need not wait for the last ones' prompts."""
        left = self._prefill_tokens * (_IDLE if is_idle else 1)
        later = (min(len(self.waiting), self._slots - self.running) - 1) // 2  # rows
        while left > 0:
            if self._prefill is None and self.waiting:
                rows = islice(self.waiting, self._slots - self.running)
                part = next_part([len(row.prompt) for row in rows], later, self._prefill_tokens)
                self._prefill = self._admit(part if is_idle else self._prefill_tokens)
            if self._prefill is None:
                return
            left -= self._advance(self._prefill, left)
            if not is_idle:
                return

    # ---- admission -------------------------------------------------------------------------------

    def _admit(self, together: int) -> Prefill | None:
        """Take waiting rows whose prompts are computed together; None if none fits.

        together: tokens of them, if there are several.
        """
        taken: list[Row] = []
        prompts: set[tuple[Any, ...]] = set()
        longest = 0
        while self.waiting and self.running + len(taken) < self._slots:
            row = self.waiting[0]
            key = (row.adapter, *row.keys)
            same = key in prompts and row.prompt_logprobs is None
            length = max(longest, len(row.prompt))
            if taken and not same and not self._goes_with(row, taken[0]):
                break
            if taken and not same and length * (len(prompts) + 1) > together:
                break
            if taken and not self._runner.together:
                break
            if not self._fits([*taken, row]):
                break
            prompts.add(key)
            longest = length
            taken.append(self.waiting.popleft())
        if not taken:
            return None
        alone = self._runner.is_alone(taken[0])
        reuses = self._reuses and not alone and taken[0].prompt_logprobs is None
        try:
            prefill = Prefill(self._runner, taken, self._prefixes if reuses else None, alone=alone)
        except Exception as error:
            for row in taken:
                row.end("error", _said(error))
            raise
        self.reused_tokens += prefill.reused
        return prefill

    def _goes_with(self, row: Row, first: Row) -> bool:
        """Whether two different prompts may be computed together."""
        if not self._runner.pads or row.media is not None or first.media is not None:
            return False
        if row.prompt_logprobs is not None or first.prompt_logprobs is not None:
            return False
        if self._runner.is_alone(row) or self._runner.is_alone(first):
            return False
        return _alike(len(row.prompt), len(first.prompt))

    def _fits(self, taken: list[Row]) -> bool:
        """Whether the cache may hold these rows too, at their full lengths."""
        if self._cache_tokens is None:
            return True
        new = len(taken) * max(len(row.prompt) + row.max_new_tokens for row in taken)
        held = sum(len(group.rows) * group.most for group in self._groups)
        return not (held or len(taken) > 1) or held + new <= self._cache_tokens

    # ---- prefill ---------------------------------------------------------------------------------

    def _advance(self, prefill: Prefill, tokens: int) -> int:
        """Compute up to so many tokens of the prompts; after the last, sample and join the others.
        Returns the number of tokens that were computed."""
        before, logits = prefill.left, prefill.step(tokens)
        computed = before - prefill.left
        if logits is None:
            return computed
        self._prefill, group = None, prefill.group
        self._groups.append(group)
        for row in group.rows:
            if not row.max_new_tokens:
                row.end("length")
        order = list(range(len(group.rows)))
        for number in reversed(order.copy()):
            if group.rows[number].reason is not None:
                group.remove(number)
                order[number] = order[-1]
                order.pop()
        if group.rows:
            self._push(group, logits[order])
            self._join(group)
        return computed

    def _join(self, group: Group) -> None:
        """Merge a new group into one of like length that was there before it."""
        if group.alone or not group.rows:
            return
        for other in self._groups[: self._groups.index(group)]:
            if other.alone or not other.rows:
                continue
            if not _alike(other.cache.length, group.cache.length):
                continue
            if not self._fits_together(other, group):
                continue
            assert isinstance(other.cache, SlotCache) and isinstance(group.cache, SlotCache)
            exact = self._cache_tokens is not None
            other.cache.take(group.cache, 0 if exact else self._slots)
            other.rows += group.rows
            self._groups.remove(group)
            return

    def _fits_together(self, one: Group, other: Group) -> bool:
        if self._cache_tokens is None:
            return True
        rest = sum(len(g.rows) * g.most for g in self._groups if g not in (one, other))
        rows = len(one.rows) + len(other.rows)
        return rest + rows * max(one.most, other.most) <= self._cache_tokens

    # ---- tokens ----------------------------------------------------------------------------------

    def _push(self, group: Group, logits: Tensor) -> None:
        """Sample the next token of each row (logits: (B, V)), and remove rows that end."""
        tokens, scores = next_tokens(logits, group.rows)
        ended: list[tuple[int, FinishReason]] = []
        for number, (row, token, score) in enumerate(zip(group.rows, tokens, scores, strict=True)):
            row.push(token, score)
            if token in row.stop_ids or not row.on_token(row, token, score):
                ended.append((number, "stop"))
            elif len(row.tokens) >= row.max_new_tokens:
                ended.append((number, "length"))
        for number, reason in reversed(ended):
            self._remove(group, number, reason)

    def _remove(self, group: Group, number: int, reason: FinishReason) -> None:
        row = group.rows[number]
        keys = row.keys + row.tokens[:-1]  # the last token was not computed
        if self._reuses and not group.alone and not self._prefixes.has(row.adapter, keys):
            assert isinstance(group.cache, SlotCache)
            self._prefixes.add(row.adapter, keys, group.cache.contents(number, len(keys)))
        group.remove(number)
        row.end(reason)

    def _drop_cancelled(self) -> None:
        if not self._any_cancelled:
            return
        self._any_cancelled = False
        for row in [row for row in self.waiting if row.cancelled]:
            self.waiting.remove(row)
            row.end("cancelled")
        for row in self._prefill.rows if self._prefill else ():
            if row.cancelled:
                row.end("cancelled")
        for group in self._groups:
            for number in range(len(group.rows) - 1, -1, -1):
                if group.rows[number].cancelled:
                    self._remove(group, number, "cancelled")
        self._groups = [group for group in self._groups if group.rows]

    def _clear(self, reason: FinishReason, error: str | None) -> None:
        """End all rows that run."""
        rows = [row for group in self._groups for row in group.rows]
        rows += self._prefill.rows if self._prefill else []
        self._groups, self._prefill = [], None
        for row in rows:
            row.end(reason, error)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _alike(one: int, other: int) -> bool:
    return max(one, other) <= max(_SHORT, _APART * min(one, other))
