"""The key-value store in which hosts and ranks meet."""

import os
import socket
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch

from tunewright import RunError
from tunewright.launch import VARIABLES

__all__ = ["TO_ANSWER", "TO_COME", "connected", "open_store", "stores"]

TO_COME = 600  # seconds that hosts and ranks wait for one that does not come
TO_ANSWER = 1800  # seconds; a rank may write a large checkpoint while the others wait
_AGENTS = "TORCHELASTIC_USE_AGENT_STORE"  # whether torchrun holds the store
#: the store of this process's ranks, once it is open
stores: list[Any] = []

_MINUTE = 60  # seconds between two lines on who does not answer
_OF_A_CALL = timedelta(seconds=300)  # to a store that is there


def open_store(run: Any) -> Any:
    """The store of all ranks. Raises RunError where nobody answers within launch.timeout, and
    Stopped."""
    return _store(run.recipe.launch.timeout or TO_COME, run.check_stop)


def _store(timeout: float, check_stop: Callable[[], None] = lambda: None) -> Any:
    """The store at MASTER_ADDR, where the process group will meet too. Raises RunError."""
    if not stores:
        if unset := [name for name in VARIABLES if not os.environ.get(name)]:
            raise RunError(
                f"{', '.join(unset)} is not set, and WORLD_SIZE is",
                place="launch",
                hint=f"what starts the processes has to set {', '.join(VARIABLES)}",
            )

        def say(message: str) -> None:
            if os.environ["LOCAL_RANK"] == "0":
                print(message, file=sys.stderr)

        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        here = os.environ["RANK"] == "0" and os.environ.get(_AGENTS) != "True"
        stores.append(connected(host, port, here, timeout, check_stop, say))
    return stores[0]


def connected(
    host: str,
    port: int,
    here: bool,
    timeout: float,
    check_stop: Callable[[], None],
    say: Callable[[str], None],
) -> Any:
    """A connection to the TCPStore at host:port. here: whether this process holds it.

    timeout: seconds to wait for it. Raises RunError where nobody answers; and what check_stop does.
    """
    if not here:
        _wait(host, port, timeout, check_stop, say)
    try:
        store = torch.distributed.TCPStore(
            host,
            port,
            is_master=here,
            timeout=timedelta(seconds=timeout),
            wait_for_workers=False,
            multi_tenant=True,  # torchrun and the process group open it once more
        )
    except (RuntimeError, ValueError, OSError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        if here:
            problem = f"port {port} cannot be opened: {said:.200}"
            raise RunError(problem, place="launch", hint="another program may have it") from error
        raise _silent(host, port, said) from error
    store.set_timeout(_OF_A_CALL)
    return store


def _wait(
    host: str,
    port: int,
    timeout: float,
    check_stop: Callable[[], None],
    say: Callable[[str], None],
) -> None:
    """Until somebody listens there: torch would wait silently, and see no signals."""
    began, said = time.monotonic(), 0
    while True:
        try:
            with socket.create_connection((host, port), timeout=5):  # seconds
                return
        except OSError as error:
            waited, problem = time.monotonic() - began, error.strerror or str(error)
        if waited > timeout:
            raise _silent(host, port, problem)
        if waited >= (said + 1) * _MINUTE:
            said += 1
            say(f"waiting for host 0 at {host}:{port}, for {said} min now: {problem}")
        check_stop()
        time.sleep(0.3)  # seconds


def _silent(host: str, port: int, said: str) -> RunError:
    hint = "host 0 has to run too, and be reached there by all others"
    problem = f"nobody answers at {host}:{port}: {said:.200}"
    return RunError(problem, place="launch", hint=hint)
