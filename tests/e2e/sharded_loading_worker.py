"""Loads and shards models as a run does that trains them, up to the first step.

Arguments: the output folder, and JSON of lists of a recipe and its overrides. Rank 0 writes the
whole weights of each to NUMBER.safetensors in the folder; each rank writes the largest memory that
it has taken while it loaded, in bytes, to NUMBER-RANK.json, or the error. `whole`: adapter full
says that it reads weights. `stopped`: rank 0 gets SIGTERM while it reads them.
"""

import ctypes
import json
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tunewright.check import resolve
from tunewright.errors import RunError, Stopped
from tunewright.run import train
from tunewright_full import Full
from tunewright_hf.models import loading
from tunewright_hf.training.loop import TrainingLoop


def anonymous() -> int:
    """Bytes of this process that are no pages of files: mapped checkpoints take none."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


class Peak(threading.Thread):
    """The most memory that the process takes beyond what it took at first."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.base, self.most, self.ended = anonymous(), 0, False
        self.start()

    def run(self) -> None:
        while not self.ended:
            self.most = max(self.most, anonymous() - self.base)
            time.sleep(0.001)


def stop_while_loading() -> None:
    read = loading.load_weights

    def interrupted(folder: Path, config: Any, native: Any, request: Any, device: Any) -> Any:
        if device.type == "cpu":  # not where the model is built without weights
            signal.raise_signal(signal.SIGTERM)
        return read(folder, config, native, request, device)

    loading.load_weights = interrupted


def main(folder: Path, runs: list[list[str]], whole: bool) -> None:
    torch.set_num_threads(1)
    if sys.platform == "linux":  # freed layers go back at once: else glibc keeps them in pieces
        ctypes.CDLL("libc.so.6").mallopt(-3, 100_000)  # M_MMAP_THRESHOLD, in bytes
    rank = os.environ["RANK"]
    if whole:
        Full.works_on_meta = lambda _: False  # type: ignore[method-assign]
    for number, (recipe, *overrides) in enumerate(runs):
        peak = Peak()

        def stop(loop: Any, *, resume: bool, peak: Any = peak, number: int = number) -> None:
            peak.ended = True
            peak.join()
            weights = loop.sharding.weights(loop.model, {})
            buffers = {f"buffer {name}": each for name, each in loop.model.named_buffers()}
            if rank == "0":
                file = folder / f"{number}.safetensors"
                save_file({n: each.clone() for n, each in (weights | buffers).items()}, file)
            (folder / f"{number}-{rank}.json").write_text(json.dumps(peak.most))
            raise Stopped("measured")

        TrainingLoop.train = stop  # type: ignore[method-assign]
        try:
            train(resolve(Path(recipe), overrides))
        except (RunError, Stopped) as error:
            if error.problem != "measured":
                (folder / f"{number}-{rank}.json").write_text(json.dumps(error.problem))
            continue
        raise AssertionError("has trained")


if __name__ == "__main__":
    if "stopped" in sys.argv[3:] and os.environ["RANK"] == "0":
        stop_while_loading()
    main(Path(sys.argv[1]), json.loads(sys.argv[2]), "whole" in sys.argv[3:])
