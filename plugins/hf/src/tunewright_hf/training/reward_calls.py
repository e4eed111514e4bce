"""Calls of rewards: asynchronous ones together, and none longer than its time limit."""

import asyncio
import math
import time
from collections.abc import Sequence
from concurrent.futures import Future
from threading import Thread
from typing import TYPE_CHECKING, Any

from tunewright import RunError, TunewrightError
from tunewright.types import RewardRequest

if TYPE_CHECKING:
    from tunewright_hf.training.rewards import WeightedReward

__all__ = ["score_all"]

_GRACE = 1.0  # seconds in which an asynchronous reward may end after it was cancelled


class TimeLimitExceeded(Exception):
    """A reward gave nothing within its time limit."""


def score_all(
    rewards: Sequence["WeightedReward"], completions: list[str], columns: dict[str, list[Any]]
) -> tuple[list[list[float]], list["WeightedReward"]]:
    """Numbers of each reward for all completions, NaN for none; and the rewards that exceeded their
    time limit and give none, as their recipe allows.

    Asynchronous rewards run together, in threads of their own, while the others are called in turn.
    Raises RunError if a reward fails, or exceeds a limit where that is an error.
    """
    requests = [RewardRequest(completions, columns, reward.policy) for reward in rewards]
    begun = {
        number: Call(reward, requests[number])
        for number, reward in enumerate(rewards)
        if reward.is_async
    }
    scores, late = [[math.nan] * len(completions) for _ in rewards], []
    for number in sorted(range(len(rewards)), key=begun.__contains__):
        reward = rewards[number]
        place = f"reward {reward.name}"
        try:
            if reward.is_async or reward.time_limit:
                given = (begun.get(number) or Call(reward, requests[number])).result()
            else:
                given = reward.score(requests[number])
            scores[number] = _numbers(given, len(completions), place)
        except TimeLimitExceeded as error:
            if reward.late == "error":
                hint = "raise it, or set `late: none` where another reward gives a number"
                problem = f"gave no numbers within its time limit of {reward.time_limit:g} seconds"
                raise RunError(problem, place=place, hint=hint) from error
            late.append(reward)
        except TunewrightError:
            raise
        except Exception as error:
            raise RunError(f"fails: {type(error).__name__}: {error}", place=place) from error
    return scores, late


def _numbers(given: Any, count: int, place: str) -> list[float]:
    """One number per completion, NaN for None. Raises RunError."""
    given = list(given)
    found = [math.nan if value is None else float(value) for value in given]
    if len(found) != count:
        raise RunError(f"gave {len(found)} numbers for {count} completions", place=place)
    for number, value in zip(found, given, strict=True):
        if value is not None and not math.isfinite(number):
            hint = "None is for completions that it says nothing of"
            raise RunError(f"gave {number}", place=place, hint=hint)
    return found


class Call:
    """A call of a reward in a thread of its own. A function that never returns keeps its thread,
    which ends with the process: until then its reward is not called again."""

    def __init__(self, reward: "WeightedReward", request: RewardRequest) -> None:
        self.reward, self.began = reward, time.monotonic()
        before: Future[Any] | None = reward.last_call
        self.found: Future[Any] | None = None
        if before is None or before.done():
            self.found = reward.last_call = Future()
            Thread(target=self._run, args=(self.found, request), daemon=True).start()

    def _run(self, found: Future[Any], request: RewardRequest) -> None:
        try:
            given = self.reward.score(request)
            found.set_result(asyncio.run(self._waited(given)) if self.reward.is_async else given)
        except BaseException as error:  # whatever it is, the thread that waits raises it
            found.set_exception(error)

    async def _waited(self, given: Any) -> Any:
        try:
            async with asyncio.timeout(self.reward.time_limit) as limit:
                return await given
        except TimeoutError as error:
            if limit.expired():
                raise TimeLimitExceeded from error
            raise

    def result(self) -> Any:
        """Its result. Raises what the reward raised, or TimeLimitExceeded."""
        limit = self.reward.time_limit
        if self.found is None:
            raise TimeLimitExceeded
        if limit is None:
            return self.found.result()
        end = self.began + limit + (_GRACE if self.reward.is_async else 0.0)
        try:
            return self.found.result(max(0.0, end - time.monotonic()))
        except TimeoutError as error:
            if self.found.done():  # of its own
                raise
            raise TimeLimitExceeded from error
