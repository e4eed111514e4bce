"""One of several processes, started by torchrun: trains some stages on prompts, and rank 0 prints
what was logged.

Arguments: the folder, and the settings as JSON.
"""

import json
import os
import sys
from pathlib import Path

import torch
from prompts_setup import install_rewards, prompts, prompts_run, run_stage
from test_prompts import stages
from training_setup import loaded, logs_of, model


def main(folder: Path, settings: dict) -> None:
    torch.set_num_threads(1)
    install_rewards()
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    for name, stage in stages().items():
        run = prompts_run(folder / name, rank=rank, world_size=world_size)
        _, result = run_stage(
            folder / name,
            loaded(model()),
            stage,
            evals={"it": prompts(3)},
            reference=loaded(model()),
            run=run,
            **settings,
        )
        if rank == 0:
            print("RESULT " + json.dumps([logs_of(run), result.metrics, result.tokens]))
        else:
            assert not run.events
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
