"""Hosts meet at the main address before torchrun starts: who is missing is said, and a mistake on
one of them ends all."""

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from tunewright import RunError
from tunewright.errors import Stopped
from tunewright.launch_failure import LEFT
from tunewright_hf.distributed.meeting import Meeting, facts_of
from tunewright_hf.distributed.store import TO_COME, connected
from tunewright_torchrun.command import PORT

if TYPE_CHECKING:
    from tunewright.launch import LaunchRequest
    from tunewright.types import RunContext

__all__ = [
    "check_stop_of",
    "meet",
    "naming_node_zero",
    "say_telling",
    "tell",
    "tell_lost",
    "the_store",
]

_TO_TELL = 60  # seconds to reach hosts that have not started yet
_NAME, _OF = "hosts", ("hosts", "node")


def meet(
    options: Any,
    run: "RunContext",
    request: "LaunchRequest",
    say: Callable[[str], None],
) -> Any:
    """Wait for the same command on all hosts. Returns their store: node 0 holds it as long as it
    has this.

    Raises RunError, on all that have come, where one does not, has another number of processes, or
    has failed; Stopped where one was stopped.
    """
    seconds, check_stop = run.recipe.launch.timeout or TO_COME, check_stop_of(request)
    store = the_store(options, options.node_rank == 0, seconds, check_stop, say)
    facts = {"launch.nodes": request.nodes, "launch.processes": request.processes}
    with naming_node_zero():
        meeting = Meeting(store, _NAME, options.node_rank, int(request.nodes), _OF)
        meeting.hold({**facts, **facts_of(run)}, check_stop, say, seconds)
    return store


def tell(options: Any, nodes: int, problem: str, say: Callable[[str], None]) -> None:
    """Tell the hosts that wait, or come within a minute, that this one has failed."""
    here = options.node_rank == 0
    say_telling(options, _TO_TELL, say)
    store = the_store(options, here, _TO_TELL, lambda: None, say)
    where = f"node {options.node_rank} on {socket.gethostname()}"
    with naming_node_zero():
        Meeting(store, _NAME, options.node_rank, nodes, _OF).refuse(f"{where}: {problem}", _TO_TELL)


def tell_lost(store: Any, rank: int) -> None:
    """Tell ranks on other hosts which one was killed here."""
    with contextlib.suppress(RuntimeError):  # host 0 is gone, with the store
        store.compare_set(LEFT, "", json.dumps([str(rank), socket.gethostname()]))


def check_stop_of(request: "LaunchRequest") -> Callable[[], None]:
    """A function that raises Stopped when the command is asked to stop."""

    def check_stop() -> None:
        if request.stop_requested():
            raise Stopped("stopped before the run began")

    return check_stop


def say_telling(options: Any, seconds: float, say: Callable[[str], None]) -> None:
    """Say that this host tells the others of its mistake, which may take so long."""
    place = f"{options.main_address}:{options.main_port or PORT}"
    say(f"telling the other hosts, at {place}, for at most {seconds:g} seconds")


def the_store(
    options: Any,
    here: bool,
    timeout: float,
    check_stop: Callable[[], None],
    say: Callable[[str], None],
) -> Any:
    """The store of all hosts, as `connected` returns it."""
    port = options.main_port or PORT
    return connected(options.main_address, port, here, timeout, check_stop, say)


@contextlib.contextmanager
def naming_node_zero() -> Iterator[None]:
    """Raise RunError for errors of the network: the host that holds the store is gone."""
    try:
        yield
    except RuntimeError as error:
        raise RunError("host 0 has ended: see what it said there", place="launch") from error
