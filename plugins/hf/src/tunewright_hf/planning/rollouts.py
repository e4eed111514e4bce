"""Completions of a planned run: as long as they may be, without values and rewards."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from tunewright_hf.inference.scheduler import Scheduler
from tunewright_hf.inference.slots import SlotCache
from tunewright_hf.losses.causal_lm import replaced
from tunewright_hf.planning.storages import StorageCounter
from tunewright_hf.training import online_rl
from tunewright_hf.training.rollouts import Rollout, RolloutGenerator

__all__ = ["planned_rollouts"]

_TOKEN = 0  # that is written all the time


@contextmanager
def planned_rollouts(counter: StorageCounter) -> Iterator[None]:
    """Inside the context no completion ends before its last token, most of which are not computed,
    and nothing is scored."""
    make = RolloutGenerator.__init__

    def without_stop(self: RolloutGenerator, *given: Any, **more: Any) -> None:
        make(self, *given, **more)
        self._stop_ids = frozenset()

    with ExitStack() as stack:
        stack.enter_context(replaced(RolloutGenerator, "__init__", without_stop))
        stack.enter_context(replaced(Scheduler, "run", lambda each: _run(each, counter)))
        stack.enter_context(replaced(online_rl, "load_rewards", lambda *_: []))
        stack.enter_context(replaced(online_rl, "Scorer", _NoScores))
        trainer = online_rl.PromptsTrainer
        stack.enter_context(replaced(trainer, "normalize_advantages", lambda *_: None))
        yield


def _run(scheduler: Scheduler, counter: StorageCounter) -> None:
    """As Scheduler.run, with one step for most tokens: the cache has its full size before the last
    one."""
    while scheduler.waiting or scheduler._prefill is not None:
        scheduler._step()
    before = counter.flops
    more = scheduler._step()
    of_a_step = counter.flops - before
    for group in scheduler._groups if more else ():
        left = min(row.max_new_tokens - len(row.tokens) for row in group.rows) - 1
        if left > 0 and isinstance(group.cache, SlotCache):
            group.cache.inputs(left, "cpu")  # makes room
            group.cache.advance(left)
            for row in group.rows:
                row.tokens += [_TOKEN] * left
            counter.flops += left * of_a_step
    while scheduler._step():
        pass


class _NoScores:
    """Takes the place of Scorer."""

    def __init__(
        self, run: Any, rewards: Any, writer: Any, count: Callable[..., None], media: Any = None
    ) -> None:
        self.samples: list[Any] = []

    def __call__(
        self,
        rows: Sequence[Any],
        written: Sequence[Rollout],
        shaping: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        return torch.tensor([float(number) for number in range(len(rows))], dtype=torch.float64)
