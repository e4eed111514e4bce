"""Peak of the storages of one rank in a real training: script FOLDER ACCELERATOR, on two ranks."""

import json
import sys
import weakref
from pathlib import Path
from typing import Any

import torch
from planning_setup import LENGTH, resolved
from torch.distributed.tensor import DTensor

from tunewright.run import Run
from tunewright.types import Data, TrainRequest
from tunewright_hf.planning.batch import workload_of_recipe
from tunewright_hf.planning.storages import StorageCounter
from tunewright_hf.training.loop import TrainingLoop


class LiveCounter(StorageCounter):
    """Counts storages by their present size: shards are gathered into storages that are resized,
    and freed without being dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, Any] = {}
        self.most = 0

    def see(self, tensor: torch.Tensor) -> None:
        if isinstance(tensor, DTensor):
            tensor = tensor._local_tensor
        storage = tensor.untyped_storage()
        self.live[storage._cdata] = weakref.ref(storage)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = super().__torch_dispatch__(function, types, args, kwargs)
        found = {key: each() for key, each in self.live.items()}
        self.live = {key: self.live[key] for key, each in found.items() if each is not None}
        self.most = max(self.most, sum(each.nbytes() for each in found.values() if each))
        return made


counter = LiveCounter()
peaks: list[int] = []
step = TrainingLoop.train_step


def watched(loop: TrainingLoop, batches: Any) -> Any:
    counter.most = 0
    made = step(loop, batches)
    peaks.append(counter.most)
    return made


TrainingLoop.train_step = watched  # type: ignore[method-assign]
folder = Path(sys.argv[1])
recipe = resolved(folder, accelerators=[json.loads(sys.argv[2])], layers=4, launch={"processes": 2})
rows = workload_of_recipe("messages", recipe.stages[0].training, False, (4, LENGTH)).rows
with counter:
    run = Run(recipe)
    run.begin_stage(0)
    training = recipe.stages[0].training.model_copy(update={"max_steps": 2, "batching": "random"})
    loaded = run.load()
    for tensor in (*loaded.model.parameters(), *loaded.model.buffers()):
        counter.see(tensor)
    request = TrainRequest(loaded, Data(train=rows), training, folder / "out")
    run.call("stage", "train_stage", request)
if run.rank == 0:
    print("peak", peaks[-1])
