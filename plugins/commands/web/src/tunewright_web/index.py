"""A run's events.jsonl as an index in memory, to which only what is new in the file is added."""

import contextlib
import hashlib
import json
import re
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from itertools import accumulate, groupby, pairwise
from pathlib import Path
from typing import Any

from tunewright_web.errors import WebError
from tunewright_web.series import Point, Series

__all__ = ["Index", "StageView"]

_BLOCK = 2**20  # bytes that are read at once
_SAMPLES, _NOTICES, _RECENT = 200, 500, 40
_MOST_NEWS = 2**20  # bytes since a cursor; with more, the whole curve is sent
_CURSOR = re.compile(r"([0-9a-f]{8})\.([0-9a-f]{1,12})")


@dataclass(slots=True)
class StageView:
    """A stage as its StageStarted says. base: steps of the stages before it."""

    name: str
    number: int
    total_steps: int
    first_step: int
    base: int
    facts: dict[str, Any]
    saved: dict[int, str] = field(default_factory=dict)  # step → path below the run folder
    metrics: dict[str, float] | None = None  # of its end


class Index:
    """path: of events.jsonl. Steps of a curve count on over the stages."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._clear("")

    def _clear(self, generation: str) -> None:
        self.generation = generation  # of the file: another one after --overwrite
        self.offset = 0  # of what was read
        self.series: dict[str, Series] = {}
        self.stages: dict[int, StageView] = {}
        self.samples: deque[dict[str, Any]] = deque(maxlen=_SAMPLES)
        self.notices: deque[dict[str, Any]] = deque(maxlen=_NOTICES)
        self.doing = ""  # the step of the run that has begun last, such as load_model
        self.started: float | None = None
        self.finished: dict[str, Any] | None = None
        self._recent: deque[tuple[float, int]] = deque(maxlen=_RECENT)  # time, step: since a start
        self._stage: StageView | None = None
        self._origin = self._seconds = self._tokens = 0.0

    # ---- reading ---------------------------------------------------------------------------------

    def update(self) -> "Index":
        """Read what is new. A missing file is an empty one."""
        with self._lock:
            try:
                with self._path.open("rb") as file:
                    generation = _generation(file.readline())
                    size = file.seek(0, 2)
                    if generation != self.generation or size < self.offset:
                        self._clear(generation)
                    file.seek(self.offset)
                    while block := file.read(_BLOCK):
                        whole = block.rfind(b"\n") + 1
                        if not whole:  # the last line is not complete, or longer than a block
                            block += file.readline()
                            whole = block.rfind(b"\n") + 1
                            if not whole:
                                break
                        for names, events in groupby(_parsed(block[:whole]), _logged_names):
                            self._take(list(events), is_logged=bool(names))
                        self.offset += whole
                        file.seek(self.offset)
            except OSError:
                self._clear("")
        return self

    @property
    def cursor(self) -> str:
        return f"{self.generation or '0' * 8}.{self.offset:x}"

    def news(self, cursor: str) -> list[dict[str, Any]] | None:
        """Events since a cursor; None where all has to be sent again. Raises WebError for what is
        no cursor."""
        offset = self.offset_of(cursor)
        if offset is None or self.offset - offset > _MOST_NEWS:
            return None
        events = _parsed(b"".join(self.lines(offset)))
        return None if any(each.get("event") == "StageStarted" for each in events) else events

    def offset_of(self, cursor: str) -> int | None:
        """Offset in the file; None for a cursor of an earlier file. Raises WebError."""
        wrong = WebError(f"after: {cursor!r:.60} is no cursor", "send one that was given")
        found = _CURSOR.fullmatch(cursor)
        if not found:
            raise wrong
        if found[1] != (self.generation or "0" * 8):
            return None
        offset = int(found[2], 16)
        if offset > self.offset:
            raise wrong
        if offset:
            with contextlib.suppress(OSError), self._path.open("rb") as file:
                file.seek(offset - 1)
                if file.read(1) != b"\n":
                    raise wrong
        return offset

    def lines(self, offset: int) -> list[bytes]:
        """Lines from an offset to what was read."""
        if offset >= self.offset:
            return []
        try:
            with self._path.open("rb") as file:
                file.seek(offset)
                return file.read(min(self.offset - offset, _MOST_NEWS)).splitlines(keepends=True)
        except OSError:
            return []

    # ---- what the events say ---------------------------------------------------------------------

    def _take(self, events: list[dict[str, Any]], *, is_logged: bool) -> None:
        """Take events in order. is_logged: all are Logged, with values of the same metrics."""
        if not is_logged or not self._logged(events):
            for event in events:
                self._take_one(event)

    def _take_one(self, event: dict[str, Any]) -> None:
        try:
            match event.get("event"):
                case "Logged":
                    self._logged([event])
                case "Evaluated":
                    self._evaluated(event)
                case "RunStarted":
                    self.started = self.started or event["time"]
                    self.finished, self.doing = None, ""
                case "StepStarted":
                    self.doing = str(event["step"])
                case "StageStarted":
                    self._stage_started(event)
                case "Saved":
                    if self._stage:
                        self._stage.saved[int(event["step"])] = str(event["path"])
                case "Sampled":
                    self.samples.append(event)
                case "Notice":
                    self.notices.append(event)
                case "StageFinished":
                    if self._stage:
                        self._stage.metrics = dict(event["metrics"])
                case "RunFinished":
                    self.finished = event
        except (KeyError, TypeError, ValueError):
            return  # a line that another program has written or damaged

    def _stage_started(self, event: dict[str, Any]) -> None:
        number, first = int(event["number"]), int(event["first_step"])
        base = sum(each.total_steps for at, each in self.stages.items() if at < number)
        old = self.stages.get(number)
        facts = {name: event.get(name) for name in ("trainable_parameters", "parameters", "rows")}
        total = int(event["total_steps"])
        self._stage = StageView(str(event["stage"]), number, total, first, base, facts)
        if old:
            self._stage.saved = {step: path for step, path in old.saved.items() if step <= first}
        self.stages[number] = self._stage
        for series in self.series.values():
            series.cut(base + first)
        lasts = [each.last for each in self.series.values() if each.last]
        self._seconds = max((point.seconds for point in lasts), default=0.0)
        self._tokens = max((point.tokens for point in lasts), default=0.0)
        self._origin = float(event["time"]) - self._seconds
        self._recent.clear()
        self._recent.append((float(event["time"]), first))

    def _logged(self, events: list[dict[str, Any]]) -> bool:
        """Add Logged events with values of the same metrics, many at once: a run may have hundreds
        of thousands. Returns False, and adds nothing, if a value or the order is damaged."""
        try:
            steps = [int(event["step"]) for event in events]
            times = [float(event["time"]) for event in events]
            metrics = [event["metrics"] for event in events]
            given = [_number(each.get("tokens")) for each in metrics]
        except (KeyError, TypeError, ValueError):
            return False
        if any(one >= other for one, other in pairwise(steps)):
            return False
        seconds = [now - self._origin for now in times]
        tokens = list(accumulate(given, lambda old, new: new or old, initial=self._tokens))[1:]
        self._recent.extend(zip(times[-_RECENT:], steps[-_RECENT:], strict=True))
        for name in metrics[0]:
            values = [each[name] for each in metrics]
            if set(map(type, values)) != {float}:
                values = list(map(_number, values))
            self._add(str(name), steps, values, seconds, tokens)
        self._seconds, self._tokens = seconds[-1], tokens[-1]
        return True

    def _evaluated(self, event: dict[str, Any]) -> None:
        step = int(event["step"])
        for name, value in event["metrics"].items():
            key = f"eval/{event['dataset']}/{name}"
            self._add(key, [step], [_number(value)], [self._seconds], [self._tokens])

    def _add(
        self,
        name: str,
        steps: list[int],
        values: list[float | None],
        seconds: list[float],
        tokens: list[float],
    ) -> None:
        if base := self._stage.base if self._stage else 0:
            steps = [base + step for step in steps]
        if name not in self.series:
            self.series[name] = Series()
        self.series[name].extend(steps, values, seconds, tokens)

    # ---- summaries -------------------------------------------------------------------------------

    def points_of(self, events: list[dict[str, Any]]) -> dict[str, list[Point]]:
        """Points of events that the index has read."""
        base = self._stage.base if self._stage else 0
        found: dict[str, list[Point]] = {}
        for event in events:
            kind = event.get("event")
            if kind not in ("Logged", "Evaluated"):
                continue
            prefix = "" if kind == "Logged" else f"eval/{event['dataset']}/"
            seconds = float(event["time"]) - self._origin
            tokens = float(event["metrics"].get("tokens") or self._tokens)
            for name, value in event["metrics"].items():
                point = Point(base + int(event["step"]), _number(value), seconds, tokens)
                found.setdefault(prefix + str(name), []).append(point)
        return found

    @property
    def stage(self) -> StageView | None:
        """The stage that has begun last."""
        return self._stage

    def eta(self) -> float | None:
        """Seconds to the end of the stage, by the pace of the last steps since it began or was
        resumed."""
        if self._stage is None or len(self._recent) < 2:
            return None
        (then, first), (now, last) = self._recent[0], self._recent[-1]
        if last <= first or now <= then:
            return None
        left = (self._stage.total_steps - last) * (now - then) / (last - first)
        return max(0.0, left - (time.time() - now))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _logged_names(event: dict[str, Any]) -> tuple[str, ...]:
    """Names of the metrics of a Logged event; () for others, and for one that is damaged."""
    metrics = event.get("metrics") if event.get("event") == "Logged" else None
    return tuple(metrics) if isinstance(metrics, dict) else ()


def _generation(line: bytes) -> str:
    """Of a file: its first line holds the time at which the run began."""
    whole = line.endswith(b"\n")
    return hashlib.blake2b(line, digest_size=4).hexdigest() if whole else ""


def _parsed(block: bytes) -> list[dict[str, Any]]:
    from pydantic_core import from_json  # twice as fast as json; not needed by every server

    lines = [line for line in block.split(b"\n") if line.strip()]
    try:
        found = from_json(b"[" + b",".join(lines) + b"]")  # at once: five times faster
    except ValueError:
        found = [_one(line) for line in lines]
    return [each for each in found if isinstance(each, dict)]


def _one(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
