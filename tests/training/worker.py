"""One of several processes, started by torchrun: trains, and rank 0 prints what was logged.

Arguments: the folder, the settings as JSON, and the checkpoint to resume from, if any.
"""

import json
import os
import sys
from pathlib import Path

import torch
from training_setup import FakeRun, loaded, lora, model, rows, run_training


def main(folder: Path, settings: dict, checkpoint: Path | None) -> None:
    torch.set_num_threads(1)
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    made = lora(model(), dropout=0.0) if settings.pop("lora", False) else loaded(model())
    evals = {"it": rows(7, seed=4)}
    run = FakeRun(folder, rank, world_size)
    data = rows(settings.pop("rows", 30))
    _, result = run_training(
        folder, made, data, evals=evals, run=run, checkpoint=checkpoint, **settings
    )
    if rank == 0:
        print("RESULT " + json.dumps([run.logged(), result.metrics, result.tokens]))
    else:
        assert not run.events
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(
        Path(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None
    )
