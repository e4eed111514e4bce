"""A server as a child process: started, awaited, reported and ended."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tunewright import RunError

_GRACE = 10  # seconds to end after SIGTERM
_CAUSES = {
    signal.SIGILL: "it was built for another CPU",
    signal.SIGKILL: "perhaps the machine ran out of memory",
}


class Child:
    """A server that `start` starts, and that ends with this process, however that ends.

    name: in messages. log: file for all that it writes.
    """

    def __init__(self, name: str, log: Path) -> None:
        self._name, self.log = name, log
        self._keeper: subprocess.Popen[str] | None = None
        self._group = 0
        self._began = 0.0
        self._is_awaited = False  # by `wait`, which closes what it reads

    def start(self, command: list[str], variables: Mapping[str, str]) -> None:
        """Start it; it is not ready then. Raises RunError."""
        self._began, self._is_awaited = time.monotonic(), False
        self.log.touch(mode=0o600)
        keeper = [sys.executable, "-I", "-S", str(Path(__file__).with_name("keeper.py"))]
        self._keeper = subprocess.Popen(
            [*keeper, str(self.log), str(_GRACE), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=_environment(Path(command[0]).parent, variables),
            start_new_session=True,  # Ctrl-C is for this process
        )
        assert self._keeper.stdout
        first = self._keeper.stdout.readline().strip()
        if not first.isdecimal():
            self.stop()
            raise RunError(f"cannot be started: {first}", place=self._name)
        self._group = int(first)

    def wait_until(self, is_ready: Callable[[], bool], seconds: float) -> None:
        """Wait until it is ready. Raises RunError if it ends first, or takes too long."""
        pause = 0.1
        while not is_ready():
            if self._keeper is None or self._keeper.poll() is not None:
                raise RunError(self.wait(), place=self._name, hint=f"its log: {self.log}")
            if time.monotonic() - self._began > seconds:
                self.stop()
                said = last_errors(self.log)
                problem = f"did not answer within {seconds:g} seconds; it said {said}"
                hint = f"its log: {self.log}; engine.start_seconds sets the time"
                raise RunError(problem, place=self._name, hint=hint)
            time.sleep(pause)
            pause = min(2.0, pause * 1.3)

    def wait(self) -> str:
        """Wait until it ends, and describe its end in one line."""
        assert self._keeper and self._keeper.stdout
        self._is_awaited = True
        with self._keeper.stdout as told:
            said = told.readline().strip()
        self._keeper.wait()
        assert self._keeper.stdin
        with contextlib.suppress(OSError):
            self._keeper.stdin.close()
        if not said:  # the keeper was killed: it ends nothing
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._group, signal.SIGKILL)
            return "was lost"
        seconds = time.monotonic() - self._began
        code, last = int(said), last_errors(self.log)
        if code >= 0:
            return f"ended with code {code} after {seconds:.0f} s; it said {last}"
        number = signal.Signals(-code)
        cause = f" ({_CAUSES[number]})" if number in _CAUSES else ""
        what = f"{number.name}, {signal.strsignal(number)}{cause}"
        return f"was ended by {what} after {seconds:.0f} s; it said {last}"

    def stop(self) -> None:
        """End it and wait. May be called again."""
        if self._keeper is None:
            return
        assert self._keeper.stdin and self._keeper.stdout
        with contextlib.suppress(OSError):
            self._keeper.stdin.close()
        self._keeper.wait()
        if not self._is_awaited:
            self._keeper.stdout.close()


def _environment(programs: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """Variables of the server: its programs come first, and this Python's packages are not its."""
    path = os.pathsep.join([str(programs), os.environ.get("PATH", os.defpath)])
    found = {**os.environ, "PATH": path, "VIRTUAL_ENV": str(programs.parent), **variables}
    for name in ("PYTHONHOME", "PYTHONPATH", "TUNEWRIGHT_ENGINE_TOKEN"):
        found.pop(name, None)
    return found


_ERROR = re.compile(r"(?<![\w.])[\w.]*(?:Error|Exception): .*|\berror: .*")


def last_errors(log: Path) -> str:
    """The last different errors that a log names, the earliest first: later ones often say no more
    than that there was one. The last line of a log without errors."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 50_000))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:  # removed with its folder, as the server ended
        text = ""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    if not lines:
        return "nothing"
    named = dict.fromkeys(found[0] for line in lines if (found := _ERROR.search(line)))
    return ", ".join(f"{line[:300]!r}" for line in [*named][-3:] or lines[-1:])


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])
