"""One of several processes, started by torchrun: trains, and rank 0 prints what was logged.

Arguments: the folder, the settings as JSON, and the checkpoint to resume from, if any.
"""

import json
import os
import sys
from pathlib import Path

import torch
from training_setup import a_run, loaded, logs_of, lora, model, rows, run_training

from tunewright_conformance.doubles import FakeRun


def with_optimizer(run: FakeRun, name: str | None) -> FakeRun:
    """The run with another optimizer, with default options."""
    if name is not None:
        run.plugins["optimizer"] = run.named("optimizer", name).plugin
    return run


def main(folder: Path, settings: dict, checkpoint: Path | None) -> None:
    torch.set_num_threads(1)
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    made = lora(model(), dropout=0.0) if settings.pop("lora", False) else loaded(model())
    evals = {"it": rows(7, seed=4)}
    run = with_optimizer(
        a_run(folder, rank=rank, world_size=world_size), settings.pop("optimizer", None)
    )
    data = rows(settings.pop("rows", 30))
    _, result = run_training(
        folder, made, data, evals=evals, run=run, checkpoint=checkpoint, **settings
    )
    if rank == 0:
        print("RESULT " + json.dumps([logs_of(run), result.metrics, result.tokens]))
    else:
        assert not run.events
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(
        Path(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None
    )
