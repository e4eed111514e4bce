"""A process of a run that fails before it has met the others tells them, so that none waits."""

import contextlib
import importlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from tunewright.errors import LostRank, Stopped, TunewrightError

__all__ = ["LEFT", "READ", "RESTARTS", "tell_now", "telling_launcher", "telling_others"]

#: key of the first rank that has ended, in the store that all share: JSON of its rank and host
LEFT = "tunewright/left"
#: key of the number of ranks that have read it, or have ended too
READ = "tunewright/left/read"
#: environment variable: the process that started this one starts it again when it fails, unless it
#: gets SIGUSR1
RESTARTS = "TUNEWRIGHT_RESTARTS"
_PATIENCE = 60.0  # seconds that a process which holds the store waits for those that are to read it
_CONNECT = timedelta(seconds=10)

#: what this process tells when its error is printed
_to_tell: list[Callable[[], None]] = []


@contextlib.contextmanager
def telling_others(recipe: Path, overrides: Sequence[str]) -> Iterator[None]:
    """Should this process fail within, `tell_now` tells those that wait for it: ranks, where it is
    one, or the commands on other hosts, where it was to launch a recipe there."""
    try:
        yield
    except BaseException as error:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            _to_tell.append(tell_ranks)
        elif "RANK" not in os.environ:
            _to_tell.append(partial(_tell_hosts, recipe, [*overrides], _line(error)))
        raise


@contextlib.contextmanager
def telling_launcher() -> Iterator[None]:
    """Should this process fail within, and would do so again, `tell_now` tells the launcher, which
    else starts it again. Errors of libraries, of the system and of lost ranks may not come back."""
    try:
        yield
    except (LostRank, Stopped, RuntimeError, OSError):
        raise
    except Exception:
        if os.environ.get(RESTARTS):
            _to_tell.insert(0, _tell_launcher)  # last, as it ends this process
            if int(os.environ.get("WORLD_SIZE", "1")) > 1 and tell_ranks not in _to_tell:
                _to_tell.append(tell_ranks)
        raise


def _tell_launcher() -> None:
    os.kill(os.getppid(), signal.SIGUSR1)


def tell_now() -> None:
    """Tell others what failed here. Whatever fails in it is not said: the reason is."""
    while _to_tell:
        with contextlib.suppress(Exception, KeyboardInterrupt):
            _to_tell.pop()()


def tell_ranks(*, store_is_here: bool = False) -> None:
    """Tell the other ranks that this one has ended. store_is_here: whether the store of rank 0, if
    this is it, goes on."""
    host, port, rank = (os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT", "RANK"))
    agents = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    holds = rank == "0" and not agents and not store_is_here
    distributed: Any = importlib.import_module("torch.distributed")
    store = distributed.TCPStore(
        host, int(port), is_master=holds, timeout=_CONNECT, wait_for_workers=False
    )
    store.compare_set(LEFT, "", json.dumps([rank, socket.gethostname()]))
    store.add(READ, 1)
    until = time.monotonic() + _PATIENCE
    while holds and store.add(READ, 0) < int(os.environ["WORLD_SIZE"]):
        if time.monotonic() > until:
            return
        time.sleep(0.2)  # seconds


def _tell_hosts(recipe: Path, overrides: list[str], problem: str) -> None:
    """Have the launcher tell, where `launch` itself can be read."""
    from tunewright import registry, yamlio
    from tunewright.kinds import kind_of
    from tunewright.launch_section import Launch
    from tunewright.overrides import override
    from tunewright.source import Source

    value: dict[str, Any] = {}
    with contextlib.suppress(TunewrightError):  # all of it may be on the command line
        read = yamlio.read(recipe)[0]
        value = {"launch": read.get("launch")} if isinstance(read, dict) else {}
    for text in overrides:
        if text.startswith("launch"):
            override(value, Source(), text)
    launch = Launch.model_validate(value.get("launch") or {})
    if launch.ranks > launch.processes:
        name = launch.name or kind_of("launcher").defaults[0]
        plugin = registry.load(registry.find("launcher", name))
        known = {k: v for k, v in launch.options.items() if k in plugin.Options.model_fields}
        launcher = plugin(plugin.Options(**known), name)  # its problem may be an unknown key
        launcher.tell_hosts(launch, problem, partial(print, file=sys.stderr))


def _line(error: BaseException) -> str:
    if not isinstance(error, TunewrightError):
        return type(error).__name__
    first, *more = error.lines
    return f"{first} (and {len(more)} more)" if more else first
