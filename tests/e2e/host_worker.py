"""One of several processes, as `tunewright train` in a process that torchrun has started, each with
overrides of its own.

Arguments: JSON of the recipe, and for each rank its overrides, the network namespace that it enters
("" for none), and its working folder. At step 3 the rank TW_DIES of the environment is killed, and
the host of rank TW_CUT loses its network; rank TW_SILENT stands still, and is killed after 15 s.
"""

import atexit
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tunewright.cli import main


def enter(namespace: str) -> None:
    """Enter a network namespace, as `ip netns exec` does."""
    with Path("/run/netns", namespace).open() as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0):
            raise OSError(ctypes.get_errno(), "setns")


def at_step_three(metrics: Path, act: Callable[[], object]) -> None:
    while not (metrics.exists() and '"step": 3' in metrics.read_text()):
        time.sleep(0.01)
    act()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def cut() -> None:
    subprocess.run(["ip", "link", "set", "eth0", "down"], check=True)


def stand_still() -> None:
    kill = ["sh", "-c", f"sleep 15; kill -KILL {os.getpid()}"]
    subprocess.Popen(kill, start_new_session=True)
    os.kill(os.getpid(), signal.SIGSTOP)


if __name__ == "__main__":
    torch.set_num_threads(1)
    recipe, overrides, namespaces, folders = json.loads(sys.argv[1])
    rank = int(os.environ["RANK"])
    if namespaces[rank]:
        enter(namespaces[rank])
    os.chdir(folders[rank])
    metrics = Path(folders[0], "run", "metrics.jsonl")
    for name, act in (("TW_DIES", die), ("TW_CUT", cut), ("TW_SILENT", stand_still)):
        if os.environ.get(name) == str(rank):
            threading.Thread(target=at_step_three, args=(metrics, act), daemon=True).start()
    sys.argv = ["tunewright", "train", recipe, *overrides[rank]]
    try:
        main()
    finally:
        atexit._run_exitfuncs()  # as a process does that was not forked
