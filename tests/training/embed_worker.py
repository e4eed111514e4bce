"""One of several processes: trains embeddings, and rank 0 prints what was logged.

Arguments: the folder, and the settings as JSON.
"""

import json
import os
import sys
from pathlib import Path

import torch
from answers_setup import run_stage
from test_embed import embed, rows
from training_setup import a_run, loaded, logs_of, model


def main(folder: Path, settings: dict) -> None:
    torch.set_num_threads(1)
    run = a_run(folder, rank=int(os.environ["RANK"]), world_size=int(os.environ["WORLD_SIZE"]))
    evals = {"it": rows(5, seed=4)}
    _, result = run_stage(
        folder, loaded(model()), embed(), rows(14), evals=evals, run=run, **settings
    )
    if run.rank == 0:
        print("RESULT " + json.dumps([logs_of(run), result.metrics]))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
