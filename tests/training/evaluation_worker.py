"""A training that keeps its best evaluation and stops early: on one process, or on several that
torchrun starts. Rank 0 prints what came of it.

Arguments: the folder, the settings as JSON, and the checkpoint to resume from, if any. The setting
`killed_at` is a step at whose evaluation the process ends itself by SIGKILL.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from training_setup import a_run, loaded, logs_of, lora, model, rows, run_training

from tunewright import events

#: the loss falls, and is said to be better the higher it is: so the first evaluation is the best
SETTINGS = {
    "max_steps": 9,
    "eval_steps": 1,
    "logging_steps": 1,
    "save_steps": 1,
    "load_best_model_at_end": True,
    "greater_is_better": True,
    "early_stopping_patience": 4,
    "batching": "random",
}


def trained(folder: Path, settings: dict[str, Any], checkpoint: Path | None = None) -> list[Any]:
    """Results that must be equal however the model was trained: steps, metrics, logs and
    notices."""
    settings = SETTINGS | settings
    made = lora(model(), dropout=0.0) if settings.pop("lora", False) else loaded(model())
    ranks = {
        "rank": int(os.environ.get("RANK", "0")),
        "world_size": int(os.environ.get("WORLD_SIZE", "1")),
    }
    killed_at = settings.pop("killed_at", None)

    def kill(event: events.Event) -> None:
        if isinstance(event, events.Evaluated) and event.step == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    run = a_run(folder, on_event=kill, **ranks)
    evals = {"it": rows(7, seed=4)}
    _, result = run_training(
        folder, made, rows(30), evals=evals, run=run, checkpoint=checkpoint, **settings
    )
    assert run.rank == 0 or not run.events
    return [result.steps, result.metrics, logs_of(run), run.notices]


def main() -> None:
    torch.set_num_threads(1)
    folder, settings, *checkpoint = sys.argv[1:]
    found = trained(Path(folder), json.loads(settings), *map(Path, checkpoint))
    if torch.distributed.is_initialized():
        first = torch.distributed.get_rank() == 0
        torch.distributed.destroy_process_group()
    else:
        first = True
    if first:
        print("RESULT " + json.dumps(found))


if __name__ == "__main__":
    main()
