"""Curves of any length in bounded memory."""

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Point", "Series"]

_BUCKETS = 2_048  # of a curve, before two and two become one


class Point(NamedTuple):
    """One value of a metric; None where it was not finite. seconds: of training, without pauses."""

    step: int
    value: float | None
    seconds: float
    tokens: float


class Series:
    """A curve to which points are appended. Of each bucket of points the smallest and the largest
    value stay, so that a spike of one step is seen, and the first and the last point always do."""

    def __init__(self) -> None:
        self._buckets: list[list[Point]] = []  # each of one or two points, in order
        self._width, self._in_last = 1, 0  # points of a bucket; of the last one so far
        self._first: Point | None = None
        self.last: Point | None = None
        self.not_finite = 0  # points without a value

    def extend(
        self,
        steps: Sequence[int],
        values: Sequence[float | None],
        seconds: Sequence[float],
        tokens: Sequence[float],
    ) -> None:
        """Append points of increasing steps. Steps that were there, as after a resume, and all
        after them are forgotten."""
        if self.last is not None and steps[0] <= self.last.step:
            self.cut(steps[0] - 1)
        at, count = 0, len(steps)
        while at < count:
            if not self._buckets or self._in_last >= self._width:
                if len(self._buckets) == 2 * _BUCKETS:
                    self._halve()
                self._buckets.append([])
                self._in_last = 0
            end = min(count, at + self._width - self._in_last)
            found = [
                Point(steps[i], values[i], seconds[i], tokens[i]) for i in _places(values, at, end)
            ]
            before = self._buckets[-1]
            self._buckets[-1] = _extremes([*before, *found]) if before else found
            self._in_last += end - at
            at = end
        self._first = self._first or Point(steps[0], values[0], seconds[0], tokens[0])
        self.last = Point(steps[-1], values[-1], seconds[-1], tokens[-1])
        self.not_finite += values.count(None)

    def cut(self, step: int) -> None:
        """Forget what comes after a step."""
        while self._buckets and self._buckets[-1][-1].step > step:
            kept = [point for point in self._buckets[-1] if point.step <= step]
            if kept:
                self._buckets[-1] = kept
                break
            self._buckets.pop()
        self._in_last = self._width  # the next point begins a bucket
        self.last = self._buckets[-1][-1] if self._buckets else None
        if self.last is None:
            self._first = None

    def points(self, count: int) -> list[Point]:
        """About `count` points at most, in order."""
        group = max(1, -(-2 * len(self._buckets) // max(count, 2)))
        found: list[Point] = []
        for at in range(0, len(self._buckets), group):
            together = [point for each in self._buckets[at : at + group] for point in each]
            found += together if group == 1 else _extremes(together)
        for point, at_end in ((self._first, False), (self.last, True)):
            if point is not None and point not in (found[0], found[-1]):
                found = [*found, point] if at_end else [point, *found]
        return found

    def _halve(self) -> None:
        pairs = zip(self._buckets[::2], self._buckets[1::2], strict=True)
        self._buckets = [_extremes([*one, *two]) for one, two in pairs]
        self._width *= 2


def _extremes(points: Sequence[Point]) -> list[Point]:
    """The smallest and the largest, in order; of points without a value, one."""
    valued = [point for point in points if point.value is not None]
    if not valued:
        return [points[0]]
    low = min(valued, key=lambda point: point.value or 0.0)
    high = max(valued, key=lambda point: point.value or 0.0)
    return [low] if low is high else sorted((low, high))


def _places(values: Sequence[float | None], at: int, end: int) -> list[int]:
    """Places of the extremes among the values of a range, as `_extremes` has them."""
    if end - at == 1:
        return [at]
    found = values[at:end]
    if None in found:
        valued = [value for value in found if value is not None]
        if not valued:
            return [at]
        low, high = found.index(min(valued)), found.index(max(valued))
    else:
        low, high = found.index(min(found)), found.index(max(found))  # type: ignore[type-var]
    return [at + low] if low == high else sorted((at + low, at + high))
