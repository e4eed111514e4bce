"""Checkpoint contents: save and load the state of a training.

Files: `weights` (trained parameters), `optimizer`, `others`, and for each rank `rng-N` and, if its
stage keeps a state on each, `stage-N`; each as checkpoints.state_codec writes them. Weights and
optimizer are those of training: an optimizer with modes is not switched, so that resuming is exact.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tunewright import RunError
from tunewright_hf.checkpoints.folder import rotate, step_folders, verify, write_checkpoint
from tunewright_hf.checkpoints.state_codec import (
    check_state,
    load_state,
    rng_state,
    save_state,
    seed_everything,
    set_rng_state,
)
from tunewright_hf.distributed.exchange import from_rank_zero, gather_files, here
from tunewright_hf.models.errors import one_line
from tunewright_hf.training.stage_trainer import has_modes

if TYPE_CHECKING:
    from tunewright_hf.training.loop import TrainingLoop


def save(loop: "TrainingLoop") -> Path:
    """Write a checkpoint, and remove old ones. Raises RunError if a weight is not finite, or the
    disk is full or fails: other checkpoints then stay unchanged."""
    check_finite(loop)
    folder = loop.checkpoint_folder / f"step-{loop.step}"
    facts = {"step": loop.step, "world_size": loop.trainer.world_size}
    write_checkpoint(
        folder,
        lambda temporary: _write(loop, temporary),
        facts=facts,
        rank=loop.trainer.rank,
        barrier=loop.accelerator.wait_for_everyone,
    )
    if loop.trainer.rank == 0:
        keeps_best = loop.training.load_best_model_at_end
        best = loop.early_stopping.state["step"] if keeps_best else None
        rotate(loop.checkpoint_folder, loop.training.save_total_limit, best)
    return folder


def check_finite(loop: "TrainingLoop") -> None:
    """Raise RunError if a trained weight is not finite."""
    loop.sharding.reshard(loop.model)
    parts = (loop.sharding.local(parameter) for _, parameter in loop.trained())
    if loop.trainer.any_rank(not all(bool(part.isfinite().all()) for part in parts)):
        raise loop.guard.bad_weights(loop.step)


def _write(loop: "TrainingLoop", folder: Path) -> None:
    rank, sharding = loop.trainer.rank, loop.sharding
    gather_files(loop.run, folder, lambda own: _write_own(loop, own, rank))
    sharding.reshard(loop.model)
    weights = {}
    # one at a time: other ranks have no memory for all of them
    for name, parameter in loop.trained():
        whole = sharding.full_tensor(parameter)
        if rank == 0:
            weights[name] = whole.cpu()
    optimizer = sharding.optimizer_state(loop.optimizer)
    if rank == 0:
        save_state(weights, folder, "weights")
        save_state(optimizer, folder, "optimizer")
        save_state(_others(loop), folder, "others")


def _others(loop: "TrainingLoop") -> dict[str, Any]:
    scaler = loop.accelerator.scaler
    return {
        "identity": loop.batches.identity(),
        "steps": loop.total_steps,
        "progress": loop.trainer.progress,
        "best": loop.early_stopping.state,
        "scheduler": loop.scheduler.state_dict(),
        "scaler": scaler.state_dict() if scaler else None,
        "callbacks": [callback.state_dict() for callback in loop.callbacks],
    }


def _write_own(loop: "TrainingLoop", folder: Path, rank: int) -> None:
    """The files of this rank."""
    save_state(rng_state(), folder, f"rng-{rank}")
    if state := loop.trainer.rank_state():
        save_state(state, folder, f"stage-{rank}")


def check_can_be_saved(loop: "TrainingLoop") -> None:
    """Raise RunError if a checkpoint could not hold the state of optimizer, scheduler or callbacks.
    Call it when the optimizer has a state: after the first step."""
    check_state(loop.sharding.optimizer_structure(loop.optimizer), "optimizer")
    check_state(_others(loop), "others")
    check_state(loop.trainer.rank_state(), "stage")


def resume(loop: "TrainingLoop") -> None:
    """Continue from the newest intact checkpoint that rank 0 has. Raises RunError."""
    found = newest_intact(loop) if loop.trainer.rank == 0 else None
    told = found and (found[0].name, found[1])
    name, manifest = from_rank_zero(loop.run, "checkpoint", told)
    with here(loop.run, loop.checkpoint_folder / name) as folder:
        load(loop, folder, manifest, name)
    if loop.trainer.rank == 0:
        loop.early_stopping.check(loop.checkpoint_folder)


def newest_intact(loop: "TrainingLoop") -> tuple[Path, dict[str, Any]]:
    """Newest checkpoint whose files are unchanged, and its manifest. On rank 0.

    Damaged ones after it are renamed, so that they no longer count as checkpoints, with a notice.
    Raises RunError if no checkpoint is intact.
    """
    found = step_folders(loop.checkpoint_folder)
    for folder in reversed(found):
        try:
            return folder, verify(folder)
        except RunError:
            if folder == found[0]:
                raise
        aside = folder.with_name(f"{folder.name}.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        message = (
            f"checkpoint {folder.name} is damaged, and kept as {aside.name}: trying the one before"
        )
        loop.reporter.notice(message, "warning")
    raise RunError("holds no checkpoint", place=str(loop.checkpoint_folder))


def load(loop: "TrainingLoop", folder: Path, manifest: dict[str, Any], name: str) -> None:
    """Continue from a checkpoint: weights, optimizer, schedule, RNG, step and all that was counted.
    name: of its folder, of which `folder` may be a copy.

    Raises RunError if it is of another model, optimizer or order of batches, or holds something
    else than a checkpoint.
    """
    # files that are what was written, and not by this version
    with one_line("is no checkpoint of this version", str(folder), "--overwrite begins anew"):
        _load(loop, folder, manifest, name)


def _load(loop: "TrainingLoop", folder: Path, manifest: dict[str, Any], name: str) -> None:
    others = load_state(folder, "others")
    _check_identity(others["identity"], loop.batches.identity(), folder)
    for part, now in (("best", loop.early_stopping.state), ("progress", loop.trainer.progress)):
        if not isinstance(others[part], dict) or not set(now) <= set(others[part]):
            raise ValueError(f"{part} holds something else")
    if f"step-{manifest['step']}" != name:
        raise ValueError(f"its step is {manifest['step']!r:.80}")
    loop.step = loop.trainer.step = manifest["step"]
    loop.trainer.progress |= others["progress"]
    loop.early_stopping.state = others["best"]
    load_weights(loop, folder)
    load_optimizer(loop, folder)
    loop.scheduler.load_state_dict(others["scheduler"])
    if loop.accelerator.scaler:
        loop.accelerator.scaler.load_state_dict(others["scaler"])
    load_callbacks(loop, others)
    if others["steps"] != loop.total_steps and manifest["world_size"] != loop.trainer.world_size:
        loop.reporter.notice(
            f"{loop.total_steps} steps in place of {others['steps']}: at the very end there are "
            "fewer rows than processes"
        )
    _load_rank(loop, folder, manifest["world_size"])


def _load_rank(loop: "TrainingLoop", folder: Path, before: int) -> None:
    """before: ranks that the checkpoint is of."""
    rank, now = loop.trainer.rank, loop.trainer.world_size
    if now == before:
        set_rng_state(load_state(folder, f"rng-{rank}"))
        if (folder / f"stage-{rank}.json").is_file():
            loop.trainer.load_rank_state(load_state(folder, f"stage-{rank}"))
        return
    sequence = np.random.SeedSequence([loop.training.seed, loop.step, rank])
    seed_everything(int(sequence.generate_state(1)[0]))
    loop.reporter.notice(
        f"goes on with {now} in place of {before} processes: rows and updates are those of an "
        "uninterrupted run, what is drawn at random (dropout, answers) is not"
    )


def _check_identity(saved: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    if changed := [name for name in sorted(saved | now) if saved.get(name) != now.get(name)]:
        words = ", ".join(f"{name} was {saved.get(name)}, is {now.get(name)}" for name in changed)
        hint = "set it back, or begin a new run"
        raise RunError(f"cannot be resumed: {words}", place=str(folder), hint=hint)


def load_weights(loop: "TrainingLoop", folder: Path) -> None:
    """Load the trained parameters of a verified checkpoint, including those that are frozen now.
    Raises RunError if it is from another model."""
    loop.sharding.reshard(loop.model)
    weights, trained = load_state(folder, "weights"), dict(loop.trained())
    there = {name: tuple(each.shape) for name, each in weights.items()}
    here = {name: loop.sharding.shape(each) for name, each in trained.items()}
    if wrong := sorted(name for name in there | here if there.get(name) != here.get(name)):
        name = wrong[0]
        problem = (
            f"is of another model: {name} is {there.get(name)} there and {here.get(name)} here"
        )
        hint = "keep the model and the adapter that it began with"
        raise RunError(problem, place=str(folder), hint=hint)
    with torch.no_grad():
        for name, parameter in trained.items():
            loop.sharding.load_full(parameter, weights[name])


def take_best(loop: "TrainingLoop") -> None:
    """Give the model the weights of the best evaluation, and say which that is."""
    step, message, level = loop.early_stopping.result(loop.step)
    if step is not None:
        loop.trainer.progress["metrics"] |= loop.early_stopping.state["metrics"]
        loop.trainer.progress["metrics"] |= {"best_step": step}
        if step != loop.step:
            if loop.trainer.rank == 0:
                verify(loop.checkpoint_folder / f"step-{step}")
            with here(loop.run, loop.checkpoint_folder / f"step-{step}") as folder:
                load_weights(loop, folder)
                if has_modes(loop.optimizer):  # which are switched between by its state
                    load_optimizer(loop, folder)
                    load_callbacks(loop, load_state(folder, "others"))
    loop.reporter.notice(message, level)


def load_callbacks(loop: "TrainingLoop", others: dict[str, Any]) -> None:
    """Load the callbacks' states. others: of a checkpoint."""
    states = others.get("callbacks", ())
    for callback, state in zip(loop.callbacks, states, strict=False):
        callback.load_state_dict(state)


def load_optimizer(loop: "TrainingLoop", folder: Path) -> None:
    """Load the optimizer's state. Raises RunError if it is from another optimizer."""
    try:
        loop.sharding.put_optimizer_state(loop.optimizer, load_state(folder, "optimizer"))
    except ValueError as error:
        raise RunError(f"is of another optimizer: {error}", place=str(folder)) from error
