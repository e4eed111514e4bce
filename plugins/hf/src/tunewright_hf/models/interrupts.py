"""Ctrl-C and SIGTERM during a library call that downloads, reads or hashes for minutes."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from tunewright.errors import Stopped
from tunewright_hf.models.hub import abort_downloads

__all__ = ["interruptible"]


@contextmanager
def interruptible(check_stop: Callable[[], None]) -> Iterator[None]:
    """Within, a signal that asks the run to stop ends the call in progress, and downloads of all
    threads. Raises Stopped then.

    check_stop: raises Stopped if the run was asked to stop, and this process may. Without a run
    that records signals, and outside the main thread, they act as before.
    """
    before: dict[int, Any] = {}

    def interrupt(number: int, frame: FrameType | None) -> None:
        before[number](number, frame)
        try:
            check_stop()
        except Stopped:
            abort_downloads()
            raise KeyboardInterrupt from None  # which libraries let pass, other than Stopped

    if threading.current_thread() is threading.main_thread():
        for each in (signal.SIGINT, signal.SIGTERM):
            if callable(handler := signal.getsignal(each)):
                before[each] = handler
                signal.signal(each, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        check_stop()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
