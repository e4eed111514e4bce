"""CPU time of each step of a training, in one thread: for machines that others use.

    python tests/bench/train.py --keep FOLDER        makes model, rows and recipes
    python tests/bench/train_cpu.py FOLDER/full-token_budget.yaml OUT.json

Wall-clock rates move by a third there, CPU time by a few percent. To compare two versions, run them
in turns (PYTHONPATH says which), and take the least of each step. OUT.json: `first`, seconds from
the start of the process to the end of the first step, and `steps`, seconds of each.
"""

import json
import sys
import time
from itertools import pairwise
from pathlib import Path

STARTED = time.process_time()

import torch  # noqa: E402

from tunewright.check import read  # noqa: E402
from tunewright.run import Run, train  # noqa: E402


def main(recipe: str, out: str) -> None:
    torch.set_num_threads(1)
    marks, emit = [], Run.emit

    def marked(self: Run, event: object) -> None:
        if type(event).__name__ in ("StageStarted", "Logged"):
            marks.append(time.process_time())
        emit(self, event)

    Run.emit = marked
    train(*read(Path(recipe)), overwrite=True)
    steps = [after - before for before, after in pairwise(marks)]
    Path(out).write_text(json.dumps({"first": marks[1] - STARTED, "steps": steps}))


if __name__ == "__main__":
    main(*sys.argv[1:])
