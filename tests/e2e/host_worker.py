"""One of several processes, as `tunewright train` in a process that torchrun has started, each with
overrides of its own.

Arguments: JSON of the recipe, and for each rank its overrides, the network namespace that it enters
("" for none), and its working folder.
"""

import atexit
import ctypes
import json
import os
import sys
from pathlib import Path

import torch

from tunewright.cli import main


def enter(namespace: str) -> None:
    """Enter a network namespace, as `ip netns exec` does."""
    with Path("/run/netns", namespace).open() as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0):
            raise OSError(ctypes.get_errno(), "setns")


if __name__ == "__main__":
    torch.set_num_threads(1)
    recipe, overrides, namespaces, folders = json.loads(sys.argv[1])
    rank = int(os.environ["RANK"])
    if namespaces[rank]:
        enter(namespaces[rank])
    os.chdir(folders[rank])
    sys.argv = ["tunewright", "train", recipe, *overrides[rank]]
    try:
        main()
    finally:
        atexit._run_exitfuncs()  # as a process does that was not forked
