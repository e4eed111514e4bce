"""One stage from the loaded model to the saved result."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tunewright import RunError
from tunewright.errors import Stopped
from tunewright.events import Notice
from tunewright.types import Data, LoadedModel, StageResult, TrainRequest
from tunewright_hf.batching import collators
from tunewright_hf.batching.batch_sampler import Batches, row_lengths
from tunewright_hf.batching.repeated_sampler import Repeated
from tunewright_hf.batching.row_stream import RowStream
from tunewright_hf.batching.streaming_sampler import StreamedBatches
from tunewright_hf.distributed.private import make_accelerator
from tunewright_hf.distributed.sharding import NoSharding
from tunewright_hf.models import precision
from tunewright_hf.models.checks import check_fit
from tunewright_hf.models.export import save_result
from tunewright_hf.training.loop import TrainingLoop
from tunewright_hf.training.reporting import Reporter
from tunewright_hf.training.stage_trainer import AnyBatches, StageTrainer, TrainingSetup

__all__ = [
    "fit",
]


def fit(
    run: Any,
    request: TrainRequest,
    make: Callable[[TrainingSetup], StageTrainer],
    *,
    stage: str,
    packing: bool = False,
    repeats: int = 1,
    template: Any = None,
) -> StageResult:
    """Train `request.loaded`, from `request.checkpoint` on where there is one, and save the result.

    make: gives the stage's trainer. stage: its name in events. packing: several rows in one,
    without padding. repeats: steps on the same rows. template: the template plugin whose chat
    template and stop tokens are saved with the model; None leaves the tokenizer as it is. Raises
    Stopped after a save, RunError where a checkpoint or the result cannot be written or read, or is
    not finite.
    """
    loaded, training = request.loaded, request.training
    check_fit(loaded, training.max_length)
    if packing:
        collators.check_packing(loaded.model.config)
        collators.check_rows_apart(loaded.model)
    batches = batches_of(run, request.data, training, packing, repeats)
    device = loaded.model.device
    number_format = precision.resolve(training.precision, device)
    stored = precision.set_trained_dtypes(loaded.model, number_format, loaded.trained)
    sharding: NoSharding = request.sharding or NoSharding()
    autocast = number_format if number_format in ("bf16", "fp16") and sharding.autocasts else "no"
    accelerator = make_accelerator(device, autocast)
    seed_everything(training.seed)
    sharding.begin(loaded.model, number_format)
    known = {name for name, _ in loaded.model.named_parameters()}
    trainer = make(TrainingSetup(run, request, batches, accelerator, sharding, device, stage))
    trained = trained_names(loaded, known)
    loop = TrainingLoop(trainer, Reporter(run, stage), trained)
    loop.train(resume=request.checkpoint is not None)
    if loop.stopped:
        raise Stopped(
            f"stopped and saved at step {loop.step} of {batches.steps}", place=str(request.folder)
        )
    loop.finish()
    names = trained if loaded.saves == "adapter" else None
    weights = sharding.weights(loaded.model, stored, names)
    if weights is None:
        precision.restore_dtypes(loaded.model, stored)
    path = request.folder / "model"
    if run.rank == 0:
        save_result(loaded, path, template, weights)
    accelerator.wait_for_everyone()
    counted = trainer.progress
    return StageResult(path, loaded.saves, loop.step, counted["tokens"], counted["metrics"])


def batches_of(run: Any, data: Data, training: Any, packing: bool, repeats: int = 1) -> AnyBatches:
    """Which rows this rank trains on, pass by pass. Raises RecipeError and RunError."""
    share = {"packing": packing, "rank": run.data_rank, "world_size": run.data_world_size}
    if isinstance(data.train, RowStream):
        return StreamedBatches(data.train, training, **share)
    lengths, share = row_lengths(data.train), share | {"order": data.order}
    batches = (
        Repeated(lengths, training, repeats=repeats, **share)
        if repeats > 1
        else Batches(lengths, training, **share)
    )
    if run.rank == 0:
        if batches.left_over:
            dropped = (
                f"the last {batches.left_over} rows are left out: too few for "
                f"{run.data_world_size} processes"
            )
            run.emit(Notice(message=dropped))
        if batches.steps == 1 and training.max_steps is None:
            short = (
                f"training.epochs: {training.epochs:g} of {len(lengths)} rows is 1 optimizer step "
                "(more epochs, or smaller batches, give more)"
            )
            run.emit(Notice(message=short, level="warning"))
    return batches


def trained_names(loaded: LoadedModel, known: set[str]) -> frozenset[str]:
    """Names of the parameters that are trained, and that checkpoints hold: fixed when training
    begins, since optimizers may freeze some for a while. known: those that the model had before the
    stage added its own. Raises RunError where there are none."""
    trainable = {name for name, each in loaded.model.named_parameters() if each.requires_grad}
    if loaded.trained is not None:
        trainable = set(loaded.trained) | (trainable - known)
    if not trainable:
        raise RunError("no parameter is trainable", place="adapter")
    return frozenset(trainable)


def seed_everything(seed: int) -> None:
    """Seed all random number generators of this process."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
