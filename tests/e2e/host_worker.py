"""One of several processes, as `tunewright train` in a process that torchrun has started, each with
overrides of its own.

Arguments: JSON of the recipe, and for each rank its overrides, the network namespace that it enters
("" for none), and its working folder. A rank whose environment has TW_DIES=RANK is killed at step 3.
"""

import atexit
import ctypes
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import torch

from tunewright.cli import main


def enter(namespace: str) -> None:
    """Enter a network namespace, as `ip netns exec` does."""
    with Path("/run/netns", namespace).open() as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0):
            raise OSError(ctypes.get_errno(), "setns")


def die(metrics: Path) -> None:
    while not (metrics.exists() and '"step": 3' in metrics.read_text()):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    torch.set_num_threads(1)
    recipe, overrides, namespaces, folders = json.loads(sys.argv[1])
    rank = int(os.environ["RANK"])
    if namespaces[rank]:
        enter(namespaces[rank])
    os.chdir(folders[rank])
    if os.environ.get("TW_DIES") == str(rank):
        metrics = Path(folders[0], "run", "metrics.jsonl")
        threading.Thread(target=die, args=(metrics,), daemon=True).start()
    sys.argv = ["tunewright", "train", recipe, *overrides[rank]]
    try:
        main()
    finally:
        atexit._run_exitfuncs()  # as a process does that was not forked
