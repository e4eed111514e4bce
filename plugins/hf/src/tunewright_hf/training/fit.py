"""Train one stage, from the loaded model to the saved result."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import nn

from tunewright import RecipeError, RunError
from tunewright.errors import Stopped
from tunewright.events import Notice
from tunewright.types import Data, LoadedModel, RunContext, StageResult, TrainRequest
from tunewright.words import counted
from tunewright_hf.batching import collators
from tunewright_hf.batching.batch_sampler import Batches, row_lengths
from tunewright_hf.batching.host_arrays import host_arrays
from tunewright_hf.batching.online_mixing import OnlineBatches
from tunewright_hf.batching.repeated_sampler import Repeated
from tunewright_hf.batching.row_stream import RowStream
from tunewright_hf.batching.streaming_sampler import StreamedBatches
from tunewright_hf.checkpoints.state_codec import seed_everything
from tunewright_hf.distributed.group import group_timeout, naming_lost_ranks, open_group
from tunewright_hf.distributed.meeting import begin_together
from tunewright_hf.distributed.private import make_accelerator
from tunewright_hf.distributed.sharding import NoSharding
from tunewright_hf.media.collation import media_rows
from tunewright_hf.models import precision
from tunewright_hf.models.checks import check_fit
from tunewright_hf.models.export import save_result
from tunewright_hf.models.forward_check import check_forward
from tunewright_hf.training.loop import TrainingLoop
from tunewright_hf.training.online_mixing import OnlineMixing
from tunewright_hf.training.reporting import Reporter
from tunewright_hf.training.stage_trainer import (
    AnyBatches,
    StageTrainer,
    StopRequested,
    TrainingSetup,
)

__all__ = [
    "fit",
]


def fit(
    run: RunContext,
    request: TrainRequest,
    make: Callable[[TrainingSetup], StageTrainer],
    *,
    stage: str,
    packing: bool = False,
    repeats: int = 1,
    template: Any = None,
) -> StageResult:
    """Train `request.loaded`, from `request.checkpoint` if given, and save the result.

    make: creates the stage's trainer. stage: its name in events. packing: several rows per
    sequence, without padding. repeats: steps on the same rows. template: the template plugin whose
    chat template and stop tokens are saved with the model; None keeps the tokenizer's. Raises
    Stopped after a save, RunError if a checkpoint or the result cannot be written or read, or is
    not finite.
    """
    request.training = with_accumulation(request.training, run.data_world_size)
    loaded, training = request.loaded, request.training
    if request.train_with is not None:
        return request.train_with(run, request, make, stage=stage)
    check_fit(loaded, training.max_length)
    if packing:
        collators.check_packing(loaded.model.config)
    batches = batches_of(run, request.data, training, packing, repeats)
    device = loaded.deferred.device if loaded.deferred else loaded.model.device
    number_format = precision.resolve(training.precision, device)
    sharding: NoSharding = request.sharding or NoSharding()
    autocast = number_format if number_format in ("bf16", "fp16") and sharding.autocasts else "no"
    begin_together(run, request.number, facts_of(request, batches))
    open_group(run, device)
    accelerator = make_accelerator(device, autocast, group_timeout(run))
    seed_everything(training.seed)
    untried = loaded.deferred is not None
    stored = start_sharding(sharding, loaded, number_format)
    with accelerator.autocast():
        if untried:
            check_forward(loaded, loaded.model.name_or_path)
            sharding.reshard(loaded.model)
        if packing:
            collators.check_rows_apart(loaded.model, media_rows(loaded))
    known = {name for name, _ in loaded.model.named_parameters()}
    try:
        trainer = make(TrainingSetup(run, request, batches, accelerator, sharding, device, stage))
    except StopRequested as stopped:
        raise Stopped("stopped before step 1", place=str(request.folder)) from stopped
    if isinstance(batches, OnlineBatches):
        trainer.training_callbacks.append(OnlineMixing(batches))
    trainer.collate = edited(trainer.collate, request.batch_edits)
    trained = trained_names(loaded, known)
    loop = TrainingLoop(trainer, Reporter(run, stage), trained)
    with naming_lost_ranks(run, lambda: loop.step):
        loop.train(resume=request.checkpoint is not None)
    if loop.stopped:
        how = f"and saved at step {loop.step} of {batches.steps}" if loop.step else "before step 1"
        raise Stopped(f"stopped {how}", place=str(request.folder))
    loop.finish()
    return save_stage(run, loop, stored, template)


def save_stage(
    run: RunContext, loop: TrainingLoop, stored: dict[str, torch.dtype], template: Any
) -> StageResult:
    """Save the result of a stage. stored: dtypes that its weights had before they were trained."""
    loaded, sharding, counted = loop.request.loaded, loop.sharding, loop.trainer.progress
    names = loop.trained_names if loaded.saves == "adapter" else None
    weights = sharding.weights(loaded.model, stored, names)
    if weights is None:
        precision.restore_dtypes(loaded.model, stored)
    path = loop.request.folder / "model"
    if run.rank == 0:
        save_result(loaded, path, template, weights)
    loop.accelerator.wait_for_everyone()
    return StageResult(path, loaded.saves, loop.step, counted["tokens"], counted["metrics"])


def edited(collate: Callable[[Any], Any], edits: Sequence[Callable[[Any], Any]]) -> Any:
    """A collator whose batches pass through `edits`, in turn."""
    return lambda rows: reduce(lambda batch, edit: edit(batch), edits, collate(rows))


def facts_of(request: TrainRequest, batches: AnyBatches) -> dict[str, Any]:
    """Facts that have to be the same on all ranks."""
    return {"data of fingerprint": request.data.fingerprint, "a number of steps of": batches.steps}


def with_accumulation(training: Any, ranks: int) -> Any:
    """recipe.Training with the gradient_accumulation_steps that rows_per_step asks for. Raises
    RecipeError where it is no multiple of a pass over all ranks."""
    rows, in_a_pass = training.rows_per_step, training.per_device_train_batch_size * ranks
    if rows is None:
        return training
    if rows % in_a_pass:
        raise RecipeError(
            f"is {rows}, and {ranks} processes with {training.per_device_train_batch_size} each "
            f"take {in_a_pass} at once",
            place="training.rows_per_step",
            hint="set a multiple, or another per_device_train_batch_size",
        )
    return training.model_copy(update={"gradient_accumulation_steps": rows // in_a_pass})


def start_sharding(
    sharding: NoSharding, loaded: LoadedModel, number_format: str
) -> dict[str, torch.dtype]:
    """Shard the model in the dtypes that it trains in. Returns those that it had, where they
    differ."""
    stored: dict[str, torch.dtype] = {}

    def set_dtypes(part: nn.Module) -> None:
        stored.update(
            precision.set_trained_dtypes(loaded.model, number_format, loaded.trained, part)
        )

    sharding.begin(loaded, number_format, set_dtypes)
    return stored


def batches_of(
    run: RunContext, data: Data, training: Any, packing: bool, repeats: int = 1
) -> AnyBatches:
    """Batches of this rank. Raises RecipeError and RunError."""
    ranks = {"rank": run.data_rank, "world_size": run.data_world_size}
    share: dict[str, Any] = {"packing": packing, **ranks}
    if isinstance(data.train, RowStream):
        return StreamedBatches(data.train, training, **share)
    shared = host_arrays([data.fingerprint, len(data.train)], len(data.train))
    lengths = (
        shared.arrays("lengths", lambda: {"lengths": row_lengths(data.train)})["lengths"]
        if shared
        else row_lengths(data.train)
    )
    share |= {"order": data.order, "shared": shared}
    batches: Batches
    if data.mixed_online:
        batches = OnlineBatches(lengths, training, sizes=data.mixed_online, **share)
    elif repeats > 1:
        batches = Repeated(lengths, training, repeats=repeats, **share)
    else:
        batches = Batches(lengths, training, **share)
    if run.rank == 0:
        if batches.left_over:
            dropped = (
                f"the last {batches.left_over} rows are left out: too few for "
                f"{run.data_world_size} processes"
            )
            run.emit(Notice(message=dropped))
        if batches.steps == 1 and training.max_steps is None:
            rows = counted(len(lengths), "row")
            short = (
                f"training.epochs: {training.epochs:g} of {rows} is 1 optimizer step "
                "(more epochs, or smaller batches, give more)"
            )
            run.emit(Notice(message=short, level="warning"))
    return batches


def trained_names(loaded: LoadedModel, known: set[str]) -> frozenset[str]:
    """Names of the parameters that are trained and saved in checkpoints: fixed when training
    begins, since optimizers may freeze some temporarily. known: parameters of the model before the
    stage added its own. Raises RunError if there are none."""
    trainable = {name for name, each in loaded.model.named_parameters() if each.requires_grad}
    if loaded.trained is not None:
        trainable = set(loaded.trained) | (trainable - known)
    if not trainable:
        raise RunError("no parameter is trainable", place="adapter")
    return frozenset(trainable)
