"""Events on their way to the loggers: a bounded queue and a thread for each, so that none can stop
or slow a run."""

import queue
import threading
from typing import TYPE_CHECKING

from tunewright.events import Event, Notice

if TYPE_CHECKING:
    from tunewright.registry import PluginCaller
    from tunewright.run import Run

CAPACITY = 1_000  # events that a logger may lag behind before it is muted
PATIENCE = 10.0  # seconds that a logger has for its last events when the run ends


class _Listener:
    def __init__(self, run: "Run", handle: "PluginCaller", reporter: "Reporter") -> None:
        self.handle, self.muted = handle, ""
        self._run, self._reporter = run, reporter
        self._events: queue.Queue[Event | None] = queue.Queue(CAPACITY)
        self._thread = threading.Thread(
            target=self._listen, name=f"logger {handle.entry.name}", daemon=True
        )
        self._thread.start()

    def _listen(self) -> None:
        for event in iter(self._events.get, None):  # None: closed
            try:
                self.handle.tell(run=self._run, event=event)
            except Exception as error:  # a failing observer is muted, the run goes on
                return self._mute(f"{type(error).__name__}: {error}")

    def put(self, event: Event | None) -> None:
        if not self.muted:
            try:
                self._events.put_nowait(event)
            except queue.Full:
                self._mute(f"is {CAPACITY} events behind")

    def close(self) -> None:
        if self.muted:  # nobody waits for it: its thread ends with the process
            return
        self.put(None)
        self._thread.join(PATIENCE)
        if self._thread.is_alive() and not self.muted:
            self._mute(f"was not done {PATIENCE:.0f} seconds after the run")

    def _mute(self, reason: str) -> None:
        self.muted = " ".join(reason.split())
        message = f"logger {self.handle.entry.name} is muted: {self.muted}"
        self._reporter.emit(Notice(message=message, level="warning"))


class Reporter:
    """Tells every logger every event, in order. `muted` says which loggers failed, and why."""

    def __init__(self, run: "Run", handles: list["PluginCaller"]) -> None:
        self._listeners: list[_Listener] = []
        self._listeners += [
            _Listener(run, handle, self) for handle in handles
        ]  # one that fails at once needs the list

    def emit(self, event: Event) -> None:
        for listener in self._listeners:
            listener.put(event)

    def close(self) -> dict[str, str]:
        for listener in self._listeners:
            listener.close()
        return {
            listener.handle.entry.name: listener.muted
            for listener in self._listeners
            if listener.muted
        }
