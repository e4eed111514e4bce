"""A run's events.jsonl as an index in memory, to which only what is new in the file is added."""

import contextlib
import hashlib
import json
import re
import threading
import time
from collections import deque
from dataclasses import dataclass, field
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
                        for event in _parsed(block[:whole]):
                            self._take(event)
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

    def _take(self, event: dict[str, Any]) -> None:
        try:
            match event.get("event"):
                case "Logged":
                    self._logged(event)
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

    def _logged(self, event: dict[str, Any]) -> None:
        step, now = int(event["step"]), float(event["time"])
        self._seconds = now - self._origin
        self._tokens = float(event["metrics"].get("tokens") or self._tokens)
        self._recent.append((now, step))
        self._add(event, "")

    def _evaluated(self, event: dict[str, Any]) -> None:
        self._add(event, f"eval/{event['dataset']}/")

    def _add(self, event: dict[str, Any], prefix: str) -> None:
        base = self._stage.base if self._stage else 0
        for name, value in event["metrics"].items():
            point = Point(base + int(event["step"]), _number(value), self._seconds, self._tokens)
            key = prefix + str(name)
            if key not in self.series:
                self.series[key] = Series()
            self.series[key].add(point)

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


def _generation(line: bytes) -> str:
    """Of a file: its first line holds the time at which the run began."""
    whole = line.endswith(b"\n")
    return hashlib.blake2b(line, digest_size=4).hexdigest() if whole else ""


def _parsed(block: bytes) -> list[dict[str, Any]]:
    lines = [line for line in block.decode("utf-8", "replace").split("\n") if line.strip()]
    try:
        found = json.loads(f"[{','.join(lines)}]")  # at once: five times faster
    except (ValueError, RecursionError):
        found = [_one(line) for line in lines]
    return [each for each in found if isinstance(each, dict)]


def _one(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
