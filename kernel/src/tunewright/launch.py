"""Several processes for one run: this process becomes torchrun's agent, and its workers run the
same command line.

Started by somebody else (`torchrun --module tunewright`, srun), workers are the same.
"""

import contextlib
import importlib
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from types import FrameType
from typing import Any

from tunewright.errors import RunError
from tunewright.stopper import TOLD, say_stopping

#: seconds that workers get to save after a stop, before torchrun kills them; torchrun's own is 30
_SHUTDOWN_TIMEOUT = "300"
#: key of the first rank that has ended, in the store that all share: JSON of its rank and host
LEFT = "tunewright/left"
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


def launch(settings: Any, arguments: Sequence[str]) -> None:
    """Run `tunewright ARGUMENTS` in so many processes, and wait for them.

    settings: recipe.Launch. A signal lets the workers save and end; a second Ctrl-C kills them.
    Raises SystemExit with the exit code of a worker that failed, 130 after a signal; RunError where
    a worker was killed.
    """
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", _SHUTDOWN_TIMEOUT)
    os.environ[TOLD] = "1"
    agent = _Agent()
    command = [
        f"--nproc-per-node={settings.processes}",
        f"--nnodes={settings.nodes}",
        f"--node-rank={settings.node_rank}",
        f"--master-addr={settings.main_address}",
        f"--master-port={settings.main_port}",
        "--signals-to-handle=SIGQUIT",  # the others are the agent's, below
        "--module",
        "tunewright",
        *arguments,
    ]
    try:
        # by name: the kernel imports no torch, and here it is what `python -m` would run
        run: Any = importlib.import_module("torch.distributed.run")
        logging.disable()  # torchrun's notes on workers, which have said what there was to say
        run.main(command)
    except BaseException as error:
        if agent.asked:
            raise SystemExit(130) from error
        if not hasattr(error, "failures"):  # torch's ChildFailedError
            raise
        raise _failed(error.failures) from error


def _failed(failures: dict[int, Any]) -> BaseException:
    """Exception that ends the command. failures: rank → torch's ProcessFailure."""
    codes = {rank: int(failure.exitcode) for rank, failure in failures.items()}
    if said := [code for code in codes.values() if code > 0]:
        return SystemExit(130 if 130 in said else said[0])
    rank, code = min(codes.items())
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    hint = "SIGKILL without anybody's doing is the system's, short of memory"
    return RunError(f"rank {rank} was ended by {name}", hint=hint)


class _Agent:
    """Handlers of the signals that end a run. The first one makes torchrun end its workers."""

    def __init__(self) -> None:
        self.asked = False
        for name in _SIGNALS:
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number and signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves it
                signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            if number == signal.SIGINT:
                os._exit(130)  # workers end with this process: see end_with_parent
            return
        self.asked = True
        say_stopping()
        api = sys.modules.get("torch.distributed.elastic.multiprocessing.api")
        if api is None:  # nothing was started yet
            raise KeyboardInterrupt
        # torchrun sends SIGTERM on to its workers, and waits for them
        raise api.SignalException("stop", sigval=signal.SIGTERM)


# ---- in a worker ---------------------------------------------------------------------------------


@contextlib.contextmanager
def telling_others() -> Iterator[None]:
    """Tell the ranks that wait, should this process fail within: before it has met them."""
    try:
        yield
    except BaseException:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            with contextlib.suppress(Exception):  # of the network; what is raised is the reason
                _tell()
        raise


def _tell() -> None:
    host, port, rank = (os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT", "RANK"))
    if rank == "0" and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return  # the store would be here
    distributed: Any = importlib.import_module("torch.distributed")
    store = distributed.TCPStore(
        host, int(port), is_master=False, timeout=timedelta(seconds=10), wait_for_workers=False
    )
    store.compare_set(LEFT, "", json.dumps([rank, socket.gethostname()]))


def end_with_parent() -> None:
    """Kill this process when torchrun, which started it, is gone: nobody would wait for it or pass
    signals on. Started by another program, it does nothing."""
    if "TORCHELASTIC_RUN_ID" in os.environ and hasattr(os, "getppid") and os.name != "nt":
        threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)  # seconds
    with contextlib.suppress(OSError):
        os.write(2, b"error: torchrun is gone: this process ends too\n")
    os.kill(os.getpid(), signal.SIGKILL)
