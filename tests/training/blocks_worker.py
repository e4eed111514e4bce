"""One of two ranks that train with an optimizer that switches blocks.

Arguments: the folder, `fsdp` or `ddp`, the method (full, lora or lisa), and `apart` where ranks
choose different blocks.
"""

import os
import sys
from functools import partial
from pathlib import Path

import torch
from loop_setup import go
from test_loop_optimizers import Switching
from training_setup import loaded, lora, model, rows

from tunewright import RunError
from tunewright.types import AdapterRequest
from tunewright_fsdp import Fsdp
from tunewright_fsdp.shard import FullyShard
from tunewright_lisa import Lisa

SETTINGS = {
    "batching": "random",
    "max_steps": 30,
    "gradient_accumulation_steps": 2,
    "save_steps": 30,
}


def start(method: str):
    """(model, optimizer class) of a method. LISA switches by itself."""
    if method == "lisa":
        adapter = Lisa(Lisa.Options(activated_layers=1, interval_steps=2), "lisa")
        made = adapter.apply_adapter(None, AdapterRequest(loaded(model())))
        return made, partial(torch.optim.SGD, momentum=0.9)
    return lora(model(), dropout=0.0) if method == "lora" else loaded(model()), Switching


class Apart(Switching):
    """Each rank chooses for itself."""

    def switch(self):
        self.param_groups[0]["turn"] += int(os.environ["RANK"])
        super().switch()


def main(folder: Path, way: str, method: str, apart: bool) -> None:
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    sharding = FullyShard(Fsdp.Options()) if way == "fsdp" else None
    made, build = start(method)
    try:
        go(
            folder / "run",
            Apart if apart else build,
            made,
            ranks=(rank, 2),
            sharding=sharding,
            per_device_train_batch_size=2,
            data=rows(32),
            **SETTINGS,
        )
    except RunError as error:
        (folder / f"error-{rank}").write_text(str(error))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], "apart" in sys.argv[4:])
