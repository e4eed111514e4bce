"""One worker of Ray Train: one process of the run."""

import os
import threading
import time
from pathlib import Path
from typing import Any

from tunewright.launch import work


def train(config: dict[str, Any]) -> None:
    """Run the command line, as Ray's train loop. Raises RuntimeError where the run failed, so that
    Ray starts all workers again.

    config: argv, environment, folder (the driver's current one), control (driver.Control).
    """
    import ray

    control, rank = config["control"], int(os.environ["RANK"])
    if Path(config["folder"]).is_dir():
        os.chdir(config["folder"])
    argv = list(config["argv"])
    if ray.get(control.begin.remote(rank)) > 1 and "--resume" not in argv:
        argv.append("--resume")
    code = work(argv, config["environment"], _Asked(control))
    ray.get(control.end.remote(rank, code))
    if code not in (0, 2, 130):  # of which none gets better by trying again
        raise RuntimeError(f"rank {rank} ended with exit code {code}")


class _Asked:
    """Last answer of the driver, asked once a second in a thread, whether to stop."""

    def __init__(self, control: Any) -> None:
        self._control, self._found = control, False
        threading.Thread(target=self._watch, daemon=True).start()

    def __call__(self) -> bool:
        return self._found

    def _watch(self) -> None:
        import ray

        while not self._found:
            self._found = bool(ray.get(self._control.asked.remote()))
            time.sleep(1)  # seconds
