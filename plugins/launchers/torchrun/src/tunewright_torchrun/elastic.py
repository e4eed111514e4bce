"""Hosts that may come and go meet before torchrun starts, which would wait for them silently, and
later hear of each other's mistakes."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tunewright import RunError
from tunewright_hf.distributed.meeting import Meeting, facts_of
from tunewright_hf.distributed.store import TO_COME
from tunewright_torchrun.command import is_own, least_nodes, most_nodes
from tunewright_torchrun.hosts import check_stop_of, naming_node_zero, say_telling, the_store

if TYPE_CHECKING:
    from tunewright.launch import LaunchRequest
    from tunewright.types import RunContext

__all__ = ["gather", "leave", "tell", "watch"]

_NAME, _OF = "hosts", ("hosts", "host")
_KEY = "tunewright/hosts"
_NUMBER = f"{_KEY}/number"  # of hosts that have come so far
_GONE = f"{_KEY}/gone"  # how many have left, after a mistake
_WHO = f"{_KEY}/who"  # the last of them
_READ = f"{_KEY}/gone/read"  # how many have ended because of that
_TO_TELL = 60  # seconds for hosts to come and read a mistake
_TO_READ = 5.0  # seconds that the host with the store gives the others to read why it ends


class _AtLeast(Meeting):
    """A meeting that begins when `ranks` hosts are there; others may come later."""

    def _missing(self) -> str:
        have_come = self.store.add(f"{self.key}/arrived", 0)
        return f"{self.ranks - have_come} of at least {self.ranks} {self.of[0]}"


def gather(
    options: Any, run: "RunContext", request: "LaunchRequest", say: Callable[[str], None]
) -> Any:
    """Wait for the same command on as many hosts as are needed at least. Returns their store.

    Raises RunError, on all that wait, where too few come, one has another recipe or other versions,
    or has failed; where the run has begun, only on this one. Stopped where one was stopped.
    """
    seconds, check_stop = run.recipe.launch.timeout or TO_COME, check_stop_of(request)
    store, _ = _store(options, seconds, check_stop, say)
    facts = {"launch.nodes": request.nodes, "launch.processes": request.processes}
    least = least_nodes(request.nodes)
    with naming_node_zero():
        number = store.add(_NUMBER, 1) - 1
        meeting = _AtLeast(store, _NAME, number, least, _OF)
        meeting.hold({**facts, **facts_of(run)}, check_stop, say, seconds)
        if number >= least and (difference := meeting.difference_of(number)):
            store.add(_GONE, 1)
            raise RunError(difference, place="launch")
    return store


def tell(options: Any, nodes: int | str, problem: str, say: Callable[[str], None]) -> None:
    """Tell the hosts that wait, or come within a minute, that this one has failed. Those of a run
    that has begun go on. nodes: number, or a range "2:4"."""
    say_telling(options, _TO_TELL, say)
    store, here = _store(options, _TO_TELL, lambda: None, say)
    where = f"host {socket.gethostname()}"
    with naming_node_zero():
        # of "1:2" there may be another one
        meeting = Meeting(store, _NAME, 0 if here else 1, max(2, least_nodes(nodes)), _OF)
        meeting.refuse(f"{where}: {problem}", _TO_TELL, most_nodes(nodes))


def watch(store: Any, least: int, is_over: Callable[[], bool], end: Callable[[str], None]) -> None:
    """In a thread, call `end` with a reason when so many hosts have left that fewer than `least`
    remain: torchrun would wait for others. is_over: whether this host ends anyway."""

    def look() -> None:
        with contextlib.suppress(RuntimeError):  # the host with the store has ended
            while store.add(_NUMBER, 0) - store.add(_GONE, 0) >= least:
                time.sleep(0.5)  # seconds
                if is_over():
                    return
            who = store.get(_WHO).decode()
            if is_over():
                return
            store.add(_READ, 1)
            end(f"{who} has ended: see what it said there")

    threading.Thread(target=look, daemon=True).start()


def leave(store: Any) -> None:
    """Tell the other hosts that this one has ended, after a mistake."""
    with contextlib.suppress(RuntimeError):  # of the network
        store.set(_WHO, socket.gethostname())
        left = store.add(_NUMBER, 0) - store.add(_GONE, 1)
        until = time.monotonic() + _TO_READ
        while store.add(_READ, 0) < left and time.monotonic() < until:
            time.sleep(0.1)  # seconds


def _store(
    options: Any, seconds: float, check_stop: Callable[[], None], say: Callable[[str], None]
) -> tuple[Any, bool]:
    """The store, and whether this host holds it, which has the main address."""
    if is_own(options.main_address):
        with contextlib.suppress(RunError):  # another command on this host holds it
            return the_store(options, True, seconds, check_stop, say), True
    return the_store(options, False, seconds, check_stop, say), False
