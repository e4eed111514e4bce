"""Data loader of the training loop: batches from the next step on, in this process or in
workers."""

import os
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from tunewright import RowError, RunError, TunewrightError
from tunewright_hf.batching.online_mixing import OnlineBatches
from tunewright_hf.batching.streaming_sampler import StreamedBatches
from tunewright_hf.training.stage_trainer import StageTrainer
from tunewright_hf.training.worker_batches import PREFETCH, Guarded, received

__all__ = ["load_batches"]

_MOST_WORKERS = 4


def load_batches(trainer: StageTrainer, step: int) -> Iterator[Any]:
    """This rank's batches after `step` optimizer steps, over all epochs.

    Raises RunError if a medium of a batch cannot be read. With workers, which decode media while
    the model computes, batches come in the same order.
    """
    training, batches = trainer.request.training, trainer.batches
    # a loader draws an unused seed when it starts: keep it out of the model's generator
    facts: dict[str, Any] = {
        "collate_fn": Guarded(trainer.collate),
        "pin_memory": trainer.device.type == "cuda",
        "generator": torch.Generator(),
    }
    if isinstance(batches, StreamedBatches):  # which reads ahead itself, and keeps its position
        if "stream" in trainer.progress:
            batches.go_to(trainer.progress["stream"])
        return _checked(DataLoader(batches, batch_size=None, **facts), trainer)
    rest = batches.after(step * training.gradient_accumulation_steps)
    if workers := worker_count(trainer):
        facts |= {"num_workers": workers, "prefetch_factor": PREFETCH}
    return _checked(DataLoader(trainer.train_rows, batch_sampler=rest, **facts), trainer)


def worker_count(trainer: StageTrainer) -> int:
    """Worker processes of this rank: as the recipe says; by default one for each of its cores but
    one, at most 4, if the model takes media, and none for text, whose batches cost nothing."""
    if isinstance(trainer.batches, OnlineBatches):  # the next batch depends on this one's loss
        return 0
    asked = trainer.request.training.dataloader_workers
    if asked is not None:
        return int(asked)
    if trainer.media is None:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(0, min(_MOST_WORKERS, (cores or 1) // trainer.world_size - 1))


def _checked(batches: DataLoader[Any], trainer: StageTrainer) -> Iterator[Any]:
    for batch in batches:
        if isinstance(batch, RowError):
            raise RunError(batch.problem, place=batch.place, hint=batch.hint)
        if isinstance(batch, TunewrightError):
            raise batch
        yield trainer.report_unreadable(received(batch))
