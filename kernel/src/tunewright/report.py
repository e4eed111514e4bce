"""Delivery of events to loggers: a bounded queue and a thread each, so that none can stop or slow a
run."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tunewright.events import Event, Notice

if TYPE_CHECKING:
    from tunewright.registry import PluginCaller
    from tunewright.types import RunContext

CAPACITY = 1_000  # events that may be queued before a logger is muted
PATIENCE = 10.0  # seconds that all loggers have for their last events when the run ends


class _Listener:
    def __init__(self, run: "RunContext", caller: "PluginCaller", reporter: "Reporter") -> None:
        self.caller, self.muted = caller, ""
        self._run, self._reporter = run, reporter
        self._events: queue.Queue[Event | None] = queue.Queue(CAPACITY)
        name = f"logger {caller.entry.name}"
        self._thread = threading.Thread(target=self._listen, name=name, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        for event in iter(self._events.get, None):  # None: closed
            try:
                self.caller.tell(run=self._run, event=event)
            except Exception as error:  # a failing logger is muted, the run goes on
                return self._mute(f"{type(error).__name__}: {error}")

    def put(self, event: Event | None) -> None:
        if not self.muted:
            try:
                self._events.put_nowait(event)
            except queue.Full:
                self._mute(f"is {CAPACITY} events behind")

    def wait(self, seconds: float) -> None:
        if self.muted:  # its thread ends with the process
            return
        self._thread.join(seconds)
        if self._thread.is_alive() and not self.muted:
            self._mute(f"was not done {PATIENCE:.0f} seconds after the run")

    def _mute(self, reason: str) -> None:
        self.muted = " ".join(reason.split())
        message = f"logger {self.caller.entry.name} is muted: {self.muted}"
        self._reporter.emit(Notice(message=message, level="warning"))


class Reporter:
    """Sends every event to every logger, in order.

    watching: called with each event first, in the thread that emits it.
    """

    def __init__(
        self,
        run: "RunContext",
        callers: list["PluginCaller"],
        watching: Sequence[Callable[[Event], None]] = (),
    ) -> None:
        self._watching, self._lock = watching, threading.Lock()
        self._listeners: list[_Listener] = []
        # a logger that fails at once needs the list
        self._listeners += [_Listener(run, caller, self) for caller in callers]

    def emit(self, event: Event) -> None:
        with self._lock:  # a muted logger reports it in its own thread
            for watch in self._watching:
                watch(event)
        for listener in self._listeners:
            listener.put(event)

    def close(self) -> dict[str, str]:
        """Wait for the loggers. Returns those that failed, with the reason."""
        for listener in self._listeners:
            listener.put(None)
        deadline = time.monotonic() + PATIENCE
        for listener in self._listeners:
            listener.wait(max(0.0, deadline - time.monotonic()))
        return {each.caller.entry.name: each.muted for each in self._listeners if each.muted}
