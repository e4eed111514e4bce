"""Benchmark of the CPU time of each training step, in one thread: for machines that others use.

    python tests/bench/train.py --keep FOLDER        creates model, rows and recipes
    python tests/bench/train_cpu.py FOLDER/full-token_budget.yaml OUT.json

On such machines wall-clock rates vary by a third, CPU time by a few percent. To compare two
versions, run them alternately (PYTHONPATH selects which), and take the minimum of each step.
OUT.json: `first`, seconds from process start to the end of the first step, and `steps`, seconds of
each.
"""

import json
import sys
import time
from itertools import pairwise
from pathlib import Path

STARTED = time.process_time()

import torch  # noqa: E402

from tunewright import events, train  # noqa: E402


def main(recipe: str, out: str) -> None:
    torch.set_num_threads(1)
    marks: list[float] = []

    def mark(event: events.Event) -> None:
        if isinstance(event, events.StageStarted | events.Logged):
            marks.append(time.process_time())

    train(recipe, overwrite=True, on_event=mark)
    steps = [after - before for before, after in pairwise(marks)]
    Path(out).write_text(json.dumps({"first": marks[1] - STARTED, "steps": steps}))


if __name__ == "__main__":
    main(*sys.argv[1:])
