"""Processes of jobs and runs: whether they live, and how they are asked to end."""

import contextlib
import signal
import socket
from typing import Any

import psutil  # type: ignore[import-untyped]

__all__ = ["HOST", "is_alive", "kill_tree", "terminate"]

HOST = socket.gethostname()  #: as run.json names it


def _process(pid: Any, known_at: float) -> psutil.Process | None:
    """The living process with this id, unless it began after it was known by it: then it is another
    one."""
    if not isinstance(pid, int) or pid <= 0:
        return None
    try:
        process = psutil.Process(pid)
        begun = process.create_time() <= known_at + 2  # seconds: clocks of both differ a little
        return process if begun and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def is_alive(pid: Any, known_at: float) -> bool:
    """Whether the process that had this id at that time (seconds since 1970) lives."""
    return _process(pid, known_at) is not None


def terminate(pid: Any, known_at: float) -> bool:
    """Send SIGTERM: the kernel saves and ends, and passes it on to torchrun's workers. Returns
    whether there was such a process of this user."""
    process = _process(pid, known_at)
    if process is None:
        return False
    try:
        parent = process.parent()
        # a worker of torchrun: its agent ends all of them
        if parent is not None and "TORCHELASTIC_RUN_ID" in _environment(process):
            process = parent
        process.send_signal(signal.SIGTERM)
    except psutil.Error:
        return False
    return True


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


def kill_tree(pid: Any, known_at: float) -> bool:
    """Send SIGKILL to a process and all that it has started."""
    process = _process(pid, known_at)
    if process is None:
        return False
    with contextlib.suppress(psutil.Error):
        for each in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                each.kill()
    return True
