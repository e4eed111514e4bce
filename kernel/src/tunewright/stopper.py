"""Signal handling: Ctrl-C, SIGTERM and SIGHUP ask a run to save and stop, which it answers."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, Self

#: signals that ask a run to stop; SIGHUP where a terminal closes, but for what nohup starts
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
_SAID = b"stopping: a run that trains saves first; Ctrl-C again stops at once\n"
#: environment variable: the process that started this one says so
TOLD = "TUNEWRIGHT_TOLD"


def say_stopping() -> None:
    """Answer a signal with a line on standard error."""
    with contextlib.suppress(OSError):
        os.write(2, _SAID)  # not print, which a signal may interrupt


#: what else asks the run of this process to stop
_asked: list[Callable[[], bool]] = []


@contextlib.contextmanager
def asking(stop_requested: Callable[[], bool]) -> Iterator[None]:
    """Within, a Stopper also asks this function, such as one that a launcher gives."""
    _asked.append(stop_requested)
    try:
        yield
    finally:
        _asked.remove(stop_requested)


def signals() -> list[int]:
    """Numbers of SIGNALS, without those that this system does not have, or that are ignored."""
    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


class Stopper:
    """Context manager that records Ctrl-C, SIGTERM and SIGHUP. A second Ctrl-C raises
    KeyboardInterrupt.

    Calling it returns whether the run was asked to stop. Outside the main thread, where Python
    handles no signals, it records nothing.
    """

    def __init__(self) -> None:
        self._first = 0  # the signal that asked the run to stop
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in signals()}
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
        # torchrun passes a second Ctrl-C on as SIGTERM
        again = {number, self._first} if "TORCHELASTIC_RUN_ID" in os.environ else {number}
        if self._first and signal.SIGINT in again:
            raise KeyboardInterrupt
        if not self._first and os.environ.get("RANK", "0") == "0" and TOLD not in os.environ:
            say_stopping()
        self._first = self._first or number

    def __call__(self) -> bool:
        return bool(self._first) or any(asked() for asked in _asked)
