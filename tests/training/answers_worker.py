"""One of several processes, started by torchrun: trains some stages on answers, and rank 0 prints
what was logged.

Arguments: the folder, and the settings as JSON.
"""

import json
import os
import sys
from pathlib import Path

import torch
from answers_setup import run_stage
from test_pairs_training import CASES, adapted
from training_setup import a_run, logs_of


def main(folder: Path, settings: dict) -> None:
    torch.set_num_threads(1)
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    for name, how in settings.pop("stages"):
        case = CASES[name]
        run = a_run(folder / name, rank=rank, world_size=world_size)
        evals = {"it": case.rows(5, seed=4)}
        made = adapted(case, how)
        _, result = run_stage(
            folder / name, made, case.stage, case.rows(14), evals=evals, run=run, **settings
        )
        if rank == 0:
            print("RESULT " + json.dumps([logs_of(run), result.metrics, result.tokens]))
        else:
            assert not run.events
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
