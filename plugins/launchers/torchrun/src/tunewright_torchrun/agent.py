"""This process becomes torchrun's agent, which starts the workers and watches them."""

import importlib
import logging
import os
import shlex
import signal
import socket
import sys
from types import FrameType
from typing import Any

from tunewright.errors import RunError
from tunewright.launch import Launched, LaunchRequest
from tunewright.launch_failure import RESTARTS
from tunewright.stopper import TOLD, say_stopping, signals
from tunewright.types import RunContext
from tunewright_torchrun.command import command, is_elastic, least_nodes

#: seconds that workers get to save after a stop, before torchrun kills them; torchrun's own is 30
_SHUTDOWN_TIMEOUT = "300"


def launched(options: Any, run: RunContext, request: LaunchRequest) -> Launched:
    """Run the workers, and wait for them.

    A signal lets the workers save and end; a second Ctrl-C kills them. Raises RunError where a
    worker was killed.
    """
    arguments = command(options, request, run.recipe.launch.timeout)
    if request.dry_run:
        return Launched(detail=shlex.join(["torchrun", *arguments]))
    # otherwise c10d warns in every process that it cannot look up the names of the others
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    elastic, store = is_elastic(options, request), None
    if request.nodes != 1:
        from tunewright_torchrun import elastic as ranges
        from tunewright_torchrun import hosts

        store = (ranges.gather if elastic else hosts.meet)(options, run, request, _say)
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", _SHUTDOWN_TIMEOUT)
    os.environ[TOLD] = "1"
    if elastic:  # each start has a store of its own
        os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = os.environ[RESTARTS] = "1"
    if options.interface:
        os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = options.interface
    agent = _Agent()
    if elastic and store is not None:
        ranges.watch(store, least_nodes(request.nodes), lambda: agent.ended, agent.end)
    try:
        # by name: it takes seconds, and here it is what `python -m` would run
        torchrun: Any = importlib.import_module("torch.distributed.run")
        logging.disable()  # torchrun's notes on workers, which have said what there was to say
        torchrun.main(arguments)
    except BaseException as error:
        if agent.asked:
            return Launched(130)
        was_ended, agent.ended = agent.ended, True
        if elastic and store is not None:
            ranges.leave(store)
        if was_ended:
            return Launched(1)
        if type(error).__name__.startswith("Rendezvous") or "DistStoreError" in repr(type(error)):
            said = " ".join(str(error).split()) or type(error).__name__
            hint = "the same command has to run on each of them, and reach launch.main_address"
            problem = f"the other hosts did not come: {said:.200}"
            raise RunError(problem, place="launch", hint=hint) from error
        if not hasattr(error, "failures"):  # torch's ChildFailedError
            raise
        return Launched(_code(error.failures, None if elastic else store))
    agent.ended = True
    return Launched()


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _code(failures: dict[int, Any], store: Any) -> int:
    """Exit code of the command. failures: rank → torch's ProcessFailure. store: of all hosts.
    Raises RunError."""
    codes = {rank: int(failure.exitcode) for rank, failure in sorted(failures.items())}
    if 130 in codes.values():
        return 130
    killed = {rank: code for rank, code in codes.items() if code < 0}
    # torchrun ends those that go on with SIGTERM: they are not the reason
    reasons = {rank: code for rank, code in killed.items() if code != -signal.SIGTERM}
    said = {rank: code for rank, code in codes.items() if code > 0}
    rank, code = next(iter((reasons or said or killed).items()))
    host = socket.gethostname()
    if code > 0:
        _say(f"error: rank {rank} on {host} ended with exit code {code}: see what it said above")
        return code
    if store is not None:
        from tunewright_torchrun.hosts import tell_lost

        tell_lost(store, rank)
    hint = "SIGKILL without anybody's doing is the system's, short of memory"
    raise RunError(f"rank {rank} on {host} was ended by {signal.Signals(-code).name}", hint=hint)


class _Agent:
    """Handlers of the signals that end a run. The first one makes torchrun end its workers."""

    def __init__(self) -> None:
        self.asked = self.ended = False
        for number in signals():
            signal.signal(number, self._ask)
        if hasattr(signal, "SIGUSR1"):  # of a worker that would fail again
            signal.signal(signal.SIGUSR1, self._end)

    def end(self, reason: str) -> None:
        """End the workers. Called in any thread."""
        _say(f"error: launch: {reason}")
        os.kill(os.getpid(), signal.SIGUSR1)

    def _end(self, number: int, frame: FrameType | None) -> None:
        if not self.ended and not self.asked:
            self.ended = True
            self._raise()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            if number == signal.SIGINT:
                os._exit(130)  # workers end with this process: see end_with_parent
            return
        self.asked = True
        say_stopping()
        self._raise()

    def _raise(self) -> None:
        api = sys.modules.get("torch.distributed.elastic.multiprocessing.api")
        if api is None:  # nothing was started yet
            raise KeyboardInterrupt
        # torchrun sends SIGTERM on to its workers, and waits for them
        raise api.SignalException("stop", sigval=signal.SIGTERM)
