"""Ranks that have ended, or are silent: each says so in the store of all, where it still can."""

import json
import socket
import threading
import time
from typing import Any

from tunewright.launch_failure import LEFT, READ
from tunewright_hf.distributed.store import stores

__all__ = ["leave", "left", "meeting_key", "named", "who_left"]

_FIRST = "1 here"  # the meeting in which all ranks say their host
_LOST = "tunewright/lost"  # keys of the ranks that have noticed that communication has failed
_PATIENCE = 3.0  # seconds in which the others notice the same, and the store answers
_has_read: list[bool] = []  # whether this process has read that another has ended


def meeting_key(name: str) -> str:
    """Beginning of the keys of a meeting."""
    return f"tunewright/{name}"


def left(store: Any) -> str:
    """Say which rank has ended; "" where none has."""
    if not store.check([LEFT]):
        return ""
    rank, host = json.loads(store.get(LEFT))
    if not _has_read:
        _has_read.append(True)
        store.add(READ, 1)
    return f"rank {rank} on {host} has ended: see what it said there"


def leave(rank: int) -> None:
    """Tell ranks that wait for this one. Where none does, nobody reads it."""
    try:
        for store in stores:
            store.compare_set(LEFT, "", json.dumps([rank, socket.gethostname()]))
    except (RuntimeError, ValueError):  # the store is gone: so is who would read it
        return


def who_left(rank: int, ranks: int) -> str:
    """Say which ranks have ended, once communication has failed on this one; "" where it cannot be
    known."""
    found: list[str] = []

    def look() -> None:
        try:
            found.extend(_look(store, rank, ranks) for store in stores)
        except RuntimeError:  # the store is gone, with rank 0
            found.append("lost rank 0")

    # a store that is cut off answers no call, and lets none end
    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(2 * _PATIENCE)
    if looking.is_alive():
        stores.clear()  # for what is still called at the end
        return "lost rank 0"
    return "".join(found)


def _look(store: Any, rank: int, ranks: int) -> str:
    until = time.monotonic() + _PATIENCE
    store.set(f"{_LOST}/{rank}", "")
    while time.monotonic() < until:
        if found := left(store):
            return found
        time.sleep(0.1)  # seconds
    lost = [each for each in range(ranks) if not store.check([f"{_LOST}/{each}"])]
    names = [named(store, each) for each in lost[:8]]
    return f"lost {', '.join(names)}{', …' * (len(lost) > 8)}" if lost else ""


def named(store: Any, rank: int) -> str:
    """A rank with the name of its host, as it has said."""
    host = json.loads(store.get(f"{meeting_key(_FIRST)}/{rank}"))["host"]
    return f"rank {rank} ({host})"
