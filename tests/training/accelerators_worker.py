"""One of several processes, started by torchrun: trains a recipe, and rank 0 prints what was
logged.

Arguments: the folder, the accelerators as JSON, and further sections of the recipe as JSON; with
`resume` it goes on.
"""

import json
import sys
from pathlib import Path

import torch
from accelerators_setup import go


def main(folder: Path, accelerators: list, sections: dict) -> None:
    torch.set_num_threads(1)
    trained = go(folder, *accelerators, resume="resume" in sys.argv[4:], **sections)
    if trained.metrics:
        print("RESULT " + json.dumps(trained.metrics))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3]))
