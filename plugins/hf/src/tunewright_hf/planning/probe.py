"""Real steps on the machine at hand, in place of an estimate."""

import gc
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tunewright.check import Resolved
from tunewright.run import Run
from tunewright.types import Data, LoadedModel, ModelRole, TrainRequest
from tunewright_hf.planning.batch import Workload, training_on
from tunewright_hf.planning.measure import Measurement, StepMeter
from tunewright_hf.planning.storages import StorageCounter

__all__ = ["Probe", "probe", "run_steps"]


@dataclass(frozen=True)
class Probe:
    """Memory and time of real steps. Seconds are of a forward and backward pass with its update."""

    peak: int | None  # bytes that the GPU's allocator handed out; None on a CPU
    seconds: float  # with the largest batch
    typical_seconds: float | None  # with a batch of mean size; None where the data is not known


def probe(
    resolved: Resolved, number: int, workload: Workload, *, trust_remote_code: bool = False
) -> Probe:
    """Train two steps on the largest batch, and two on one of mean size, in this process. Nothing
    is saved. Raises as training does."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    run = Run(resolved, trust_remote_code=trust_remote_code)
    largest = run_steps(run, number, workload)
    peak = torch.cuda.max_memory_allocated() if on_gpu else None
    typical = None
    if workload.typical is not None:
        mean = Workload(workload.typical, sum(workload.lengths))
        typical = run_steps(Run(resolved, trust_remote_code=trust_remote_code), number, mean)
    return Probe(peak, largest.seconds, typical.seconds if typical else None)


def run_steps(
    run: Run, number: int, workload: Workload, counter: StorageCounter | None = None
) -> Measurement:
    """Load the models of stage `number` (0 is the first) and train two steps. counter: counts the
    storages, which takes time."""
    meter = StepMeter(counter or StorageCounter(), None)
    context: Any = counter or nullcontext()
    with context, tempfile.TemporaryDirectory() as folder:
        run.begin_stage(number)
        stage = run.stage(number)
        loaded = run.load(head=stage.head)
        others: dict[ModelRole, LoadedModel] = {
            role: run.load(trainable=False) for role in stage.models if role != "policy"
        }
        gc.collect()  # what loading has left in reference cycles
        training = training_on(workload, run.resolved.stages[number].training)
        data = Data(train=workload.rows)
        request = TrainRequest(loaded, data, training, Path(folder), others)
        request.train_with = meter
        run.call("stage", "train_stage", request)
    return meter.found
