"""Signals: Ctrl-C and SIGTERM ask a run to save and stop, which is said at once."""

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

_SAID = b"stopping: a run that trains saves first; Ctrl-C again stops at once\n"


class Stopper:
    """Context manager that notes Ctrl-C and SIGTERM. A second Ctrl-C raises KeyboardInterrupt.

    Called, it returns whether the run was asked to stop. Outside the main thread, where Python
    takes no signals, it notes nothing.
    """

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            numbers = (signal.SIGINT, signal.SIGTERM)
            self._before = {number: signal.signal(number, self._ask) for number in numbers}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self._asked and os.environ.get("RANK", "0") == "0":
            with contextlib.suppress(OSError):
                os.write(2, _SAID)  # not print, which may be in progress when a signal comes
        self._asked = True

    def __call__(self) -> bool:
        return self._asked
