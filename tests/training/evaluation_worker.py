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
from training_setup import FakeRun, loaded, lora, model, rows, run_training

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


class Dying(FakeRun):
    killed_at: int | None = None

    def emit(self, event: Any) -> None:
        super().emit(event)
        if type(event).__name__ == "Evaluated" and event.step == self.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)


def trained(folder: Path, settings: dict[str, Any], checkpoint: Path | None = None) -> list[Any]:
    """What must be the same however it was trained: steps, metrics, what was logged and said."""
    settings = SETTINGS | settings
    made = lora(model(), dropout=0.0) if settings.pop("lora", False) else loaded(model())
    run = Dying(folder, int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
    run.killed_at = settings.pop("killed_at", None)
    evals = {"it": rows(7, seed=4)}
    _, result = run_training(
        folder, made, rows(30), evals=evals, run=run, checkpoint=checkpoint, **settings
    )
    assert run.rank == 0 or not run.events
    said = [event.message for event in run.events if type(event).__name__ == "Notice"]
    return [result.steps, result.metrics, run.logged(), said]


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
