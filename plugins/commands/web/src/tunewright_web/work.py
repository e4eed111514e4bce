"""Child processes of the server, for what needs torch: a look at data, a plan.

A command's standard error belongs to the answer. There are few at a time, they end with the server,
and a new request of the same key ends the one before.
"""

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.errors import RunError

_AT_ONCE = threading.BoundedSemaphore(2)
_MOST_BYTES = 64_000_000  # of an answer
_running: dict[str, subprocess.Popen[bytes]] = {}
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Answer:
    """Result of a command. value: what it printed as JSON; None if it failed. said: its standard
    error, for people."""

    value: Any = None
    said: str = ""
    code: int = 0

    @property
    def error(self) -> str:
        """Last line that the command said, without `error: `."""
        lines = [line for line in self.said.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("error: ")]
        found = (errors or lines or ["it ended without a word"])[-1]
        return found.removeprefix("error: ")


def ask(
    arguments: list[str], recipe: str, folder: Path, *, key: str, seconds: float = 300
) -> Answer:
    """Run `tunewright ARGUMENTS` in a folder, and read the JSON that it prints.

    recipe: YAML text of the file that stands for `RECIPE` in the arguments. key: a second request
    with it ends the first. Raises RunError if it takes longer than `seconds`.
    """
    with tempfile.TemporaryDirectory(prefix="tunewright-web-") as own:
        file = Path(own, "recipe.yaml")
        file.touch(mode=0o600)
        file.write_text(recipe, encoding="utf-8")
        command = [str(file) if each == "RECIPE" else each for each in arguments]
        if not _AT_ONCE.acquire(timeout=seconds):
            raise RunError("the server is busy with other looks at data", hint="try again")
        try:
            code, out, said = _run(command, folder, Path(own), key, seconds)
        finally:
            _AT_ONCE.release()
        said = said.replace(str(file), "recipe.yaml").replace(f"{folder}/", "")
    if code:
        return Answer(None, said, code)
    try:
        return Answer(json.loads(out), said, code)
    except ValueError:
        return Answer(None, f"{said}\n{out[:2000]}", code)


def _run(
    command: list[str], folder: Path, own: Path, key: str, seconds: float
) -> tuple[int, str, str]:
    """Exit code, standard output and standard error: files, so that no pipe fills."""
    out, said = own / "out", own / "said"
    with out.open("wb") as first, said.open("wb") as second:
        child = subprocess.Popen(
            [sys.executable, "-m", "tunewright", *command],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=first,
            stderr=second,
            start_new_session=os.name != "nt",
        )
        with _lock:
            before, _running[key] = _running.get(key), child
        if before is not None:
            _end(before)
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise RunError(f"it took longer than {seconds:g} seconds") from error
        finally:
            _end(child)
            with _lock:
                if _running.get(key) is child:
                    del _running[key]
    text = out.read_bytes()[:_MOST_BYTES].decode("utf-8", "replace")
    return code, text, said.read_bytes()[-20_000:].decode("utf-8", "replace").strip()


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill a process with its own children."""
    if child.poll() is None:
        with contextlib.suppress(OSError):
            if os.name == "nt":
                child.kill()
            else:
                os.killpg(child.pid, signal.SIGKILL)
        child.wait()


@atexit.register
def _end_all() -> None:
    for child in list(_running.values()):
        _end(child)
