"""One of two processes, started as torchrun does: trains, of which the last rank alone is asked to
stop. Each prints where it stopped, or what came of it.

Arguments: the folder, how often it is looked for a stop until it is asked for (0: never), and the
checkpoint to resume from, if any.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from training_setup import a_run, loaded, model, rows, run_training

from tunewright.errors import Stopped


def main(folder: Path, number: int, checkpoint: Path | None) -> None:
    torch.set_num_threads(1)
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    run, calls = a_run(folder, rank=rank, world_size=world_size), []

    def stop(run: Any) -> bool:
        calls.append(run)
        return rank == world_size - 1 and 0 < number <= len(calls)

    settings = {"eval_steps": 2, "per_device_eval_batch_size": 1, "logging_steps": 1}
    try:
        _, result = run_training(
            folder,
            loaded(model(dropout=0.2)),
            rows(30),
            evals={"it": rows(5, seed=4)},
            run=run,
            checkpoint=checkpoint,
            stop=stop,
            load_best_model_at_end=True,
            **settings,
        )
        said = [result.steps, result.metrics]
    except Stopped as stopped:
        said = [stopped.problem]
    print("RESULT " + json.dumps(said))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
