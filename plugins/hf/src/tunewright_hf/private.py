"""The one module where private names of transformers' and TRL's trainers stand.

It replaces how they keep their state: no pickle is ever written, and none is opened, whatever lies in a
checkpoint's folder. A test fails when one of these names changes there.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import unwrap_peft_model

from tunewright import RunError
from tunewright_hf.best import Best
from tunewright_hf.checkpoint import rotate, verify, write_checkpoint
from tunewright_hf.spread import gathered, optimizer_state, spread_like
from tunewright_hf.state import load_state, rng_state, save_state, set_rng_state

#: methods of transformers.Trainer that are replaced here
REPLACED = (
    "_defer_fsdp_gradient_reduction", "_load_best_model", "_load_from_checkpoint",
    "_load_optimizer_and_scheduler", "_load_rng_state",
    "_load_scaler", "_push_from_checkpoint", "_save", "_save_checkpoint", "_save_optimizer_and_scheduler",
    "_save_rng_state", "_save_scaler", "_tune_save_checkpoint",
)  # fmt: skip
STATE_FILE = "trainer_state.json"  # transformers reads it itself, by this name


class OwnCheckpoints:
    """Stands before a transformers Trainer among the bases of a class, and needs these attributes of it."""

    accelerator: Any  # the first six are the Trainer's own
    args: Any
    lr_scheduler: Any
    model: Any
    optimizer: Any
    state: Any
    checkpoint_folder: Path
    checkpoint_limit: int
    best: Best
    identity: dict[str, Any]  # what must be the same when a checkpoint is resumed
    progress: dict[str, Any]  # what is counted while training, and goes on when resumed

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step, args = self.state.global_step, self.args
        folder = self.checkpoint_folder / f"step-{step}"
        facts = {"step": step, "world_size": args.world_size}
        barrier = self.accelerator.wait_for_everyone
        write_checkpoint(folder, self._write_state, facts=facts, rank=args.process_index, barrier=barrier)
        if args.process_index == 0:
            kept = self.best.state["step"] if self.best.training.load_best_model_at_end else None
            rotate(self.checkpoint_folder, self.checkpoint_limit, kept)

    def _write_state(self, folder: Path) -> None:
        save_state(rng_state(), folder, f"rng-{self.args.process_index}")
        weights, optimizer = gathered(dict(_trained(self.model))), gathered(self.optimizer.state_dict())
        if self.args.process_index:
            return
        save_state(weights, folder, "weights")
        save_state(optimizer, folder, "optimizer")
        scaler = self.accelerator.scaler
        others = {
            "identity": self.identity,
            "progress": self.progress,
            "best": self.best.state,
            "scheduler": self.lr_scheduler.state_dict(),
            "scaler": scaler.state_dict() if scaler else None,
        }
        save_state(others, folder, "others")
        self.state.save_to_json(str(folder / STATE_FILE))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        verify(folder)
        others = load_state(folder, "others")
        saved, now = others["identity"], self.identity
        if changed := [name for name in sorted(saved | now) if saved.get(name) != now.get(name)]:
            words = ", ".join(f"{name} was {saved.get(name)}, is {now.get(name)}" for name in changed)
            raise RunError(f"cannot be resumed: {words}", place=str(folder), hint="set it back, or begin a new run")
        self.progress, self.best.state = others["progress"], others["best"]
        self.load_weights(folder)

    def load_weights(self, folder: Path) -> None:
        """Take the trained parameters of a checkpoint that was verified. Raises RunError where it is of another
        model."""
        weights, trained = load_state(folder, "weights"), dict(_trained(self.model))
        there, here = ({name: tuple(each.shape) for name, each in all_.items()} for all_ in (weights, trained))
        if wrong := sorted(name for name in there | here if there.get(name) != here.get(name)):
            name = wrong[0]
            problem = f"is of another model: {name} is {there.get(name)} there and {here.get(name)} here"
            raise RunError(problem, place=str(folder), hint="keep the model and the adapter that it began with")
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(spread_like(weights[name], parameter))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        self.lr_scheduler.load_state_dict(load_state(Path(checkpoint), "others")["scheduler"])
        state = optimizer_state(self.optimizer, load_state(Path(checkpoint), "optimizer"))
        try:
            self.optimizer.load_state_dict(state)
        except ValueError as error:
            raise RunError(f"is of another optimizer: {error}", place=checkpoint) from error

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(load_state(Path(checkpoint), "others")["scaler"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            set_rng_state(load_state(Path(checkpoint), f"rng-{self.args.process_index}"))

    @contextmanager
    def _defer_fsdp_gradient_reduction(self) -> Iterator[None]:
        """Of a step's forward passes only the last reduces gradients. transformers asks a config that a model of ours
        does not have."""
        self.model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self.model.set_requires_gradient_sync(True)

    def _closed(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError("results are written by tunewright_hf.export, checkpoints by OwnCheckpoints")

    _save = _save_optimizer_and_scheduler = _save_rng_state = _save_scaler = _closed
    _load_best_model = _push_from_checkpoint = _tune_save_checkpoint = _closed


def _trained(model: Any) -> list[tuple[str, torch.nn.Parameter]]:
    """What a checkpoint holds of a model: the rest is loaded again as it was at the beginning."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def one_gpu(args: Any) -> None:
    """Train on one GPU where several are seen and no launcher was used: transformers would take
    nn.DataParallel.
    """
    if args.n_gpu > 1:
        args._n_gpu = 1


def silence(trainer: Any) -> None:
    """No prints of the trainer's own: what is to be said goes to the loggers as events."""
    trainer.remove_callback(PrinterCallback)


def keep_spread(model: Any) -> None:
    """Tell transformers that the model owns its placement and the reduction of its gradients: no DDP round it."""
    unwrap_peft_model(model)._is_distributed_loading_by_transformers = True


def keep_model(model: Any) -> Callable[[], None]:
    """Remember what SFTTrainer changes in a model when it is made; the function that is returned changes it
    back.

    That is the fused head of its own loss, and use_cache: both would outlive the training, and be saved.
    """
    base = unwrap_peft_model(model)
    forward, use_cache = base.__dict__.get("forward"), base.config.use_cache

    def restore() -> None:
        base.__dict__.pop("forward", None)
        if forward is not None:
            base.forward = forward
        base.config.use_cache = use_cache

    return restore
