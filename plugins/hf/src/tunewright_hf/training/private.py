"""The one module where private names of transformers' and TRL's trainers, and of accelerate, stand.

It replaces how they keep their state: no pickle is ever written, and none is opened, whatever lies
in a checkpoint's folder. A test fails when one of these names changes there.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import accelerate.utils.other
import torch
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import unwrap_peft_model

from tunewright import RunError
from tunewright_hf.checkpoints.folder import rotate, verify, write_checkpoint
from tunewright_hf.checkpoints.state_codec import load_state, rng_state, save_state, set_rng_state
from tunewright_hf.distributed.sharding import NoSharding
from tunewright_hf.training.early_stopping import EarlyStopping

# accelerate imports DeepSpeed wherever it is installed, to see whether a model is its engine: none
# is, where it was not imported before
accelerate.utils.other.is_deepspeed_available = lambda: "deepspeed" in sys.modules

#: methods of transformers.Trainer that are replaced here
REPLACED = (
    "_defer_fsdp_gradient_reduction",
    "_load_best_model",
    "_load_from_checkpoint",
    "_load_optimizer_and_scheduler",
    "_load_rng_state",
    "_load_scaler",
    "_prepare_for_training",
    "_prepare_input",
    "_push_from_checkpoint",
    "_save",
    "_save_checkpoint",
    "_save_optimizer_and_scheduler",
    "_save_rng_state",
    "_save_scaler",
    "_tune_save_checkpoint",
)
STATE_FILE = "trainer_state.json"  # transformers reads it itself, by this name


class OwnCheckpoints:
    """Stands before a transformers Trainer among the bases of a class, and needs these attributes
    of it."""

    accelerator: Any  # the first seven are the Trainer's own
    args: Any
    is_deepspeed_enabled: bool
    lr_scheduler: Any
    model: Any
    optimizer: Any
    state: Any
    checkpoint_folder: Path
    checkpoint_limit: int
    best: EarlyStopping
    identity: dict[str, Any]  # what must be the same when a checkpoint is resumed
    progress: dict[str, Any]  # what is counted while training, and goes on when resumed
    spread: NoSharding

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step, args = self.state.global_step, self.args
        folder = self.checkpoint_folder / f"step-{step}"
        facts = {"step": step, "world_size": args.world_size}
        barrier = self.accelerator.wait_for_everyone
        write_checkpoint(
            folder, self._write_state, facts=facts, rank=args.process_index, barrier=barrier
        )
        if args.process_index == 0:
            kept = self.best.state["step"] if self.best.training.load_best_model_at_end else None
            rotate(self.checkpoint_folder, self.checkpoint_limit, kept)

    def _write_state(self, folder: Path) -> None:
        save_state(rng_state(), folder, f"rng-{self.args.process_index}")
        self.spread.reshard(self.model)
        weights = {}
        for name, parameter in _trained(
            self.model
        ):  # one at a time: no other process has room for all of them
            whole = self.spread.full_tensor(parameter)
            if self.args.process_index == 0:
                weights[name] = whole.cpu()
        optimizer = self.spread.optimizer_state(self.optimizer)
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

    def _prepare_for_training(
        self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None
    ) -> tuple[Any, Any]:
        """Told of no checkpoint: transformers would have DeepSpeed open files of its own, which are
        pickles."""
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)  # type: ignore[misc]
        self.spread.ready(self)
        if resume_from_checkpoint is not None:
            if (
                self.is_deepspeed_enabled
            ):  # of other models the weights are read before they are wrapped
                self._load_from_checkpoint(resume_from_checkpoint)
            self._load_optimizer_and_scheduler(resume_from_checkpoint)
            self._load_scaler(resume_from_checkpoint)
        return prepared

    def _prepare_input(self, data: Any) -> Any:
        """Numbers keep their format: with DeepSpeed, transformers would give weights of tokens and
        scores of a reference that of the model."""
        if isinstance(data, torch.Tensor):
            return data.to(self.args.device)
        return super()._prepare_input(data)  # type: ignore[misc]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        verify(folder)
        others = load_state(folder, "others")
        saved, now = others["identity"], self.identity
        if changed := [name for name in sorted(saved | now) if saved.get(name) != now.get(name)]:
            words = ", ".join(
                f"{name} was {saved.get(name)}, is {now.get(name)}" for name in changed
            )
            raise RunError(
                f"cannot be resumed: {words}",
                place=str(folder),
                hint="set it back, or begin a new run",
            )
        self.progress, self.best.state = others["progress"], others["best"]
        self.load_weights(folder)

    def load_weights(self, folder: Path) -> None:
        """Take the trained parameters of a checkpoint that was verified. Raises RunError where it
        is of another model."""
        self.spread.reshard(self.model)
        weights, trained = load_state(folder, "weights"), dict(_trained(self.model))
        there = {name: tuple(each.shape) for name, each in weights.items()}
        here = {name: self.spread.shape(each) for name, each in trained.items()}
        if wrong := sorted(name for name in there | here if there.get(name) != here.get(name)):
            name = wrong[0]
            problem = (
                f"is of another model: {name} is {there.get(name)} there and {here.get(name)} here"
            )
            raise RunError(
                problem, place=str(folder), hint="keep the model and the adapter that it began with"
            )
        for name, parameter in trained.items():
            self.spread.load_full(parameter, weights[name])

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        self.lr_scheduler.load_state_dict(load_state(Path(checkpoint), "others")["scheduler"])
        try:
            self.spread.put_optimizer_state(
                self.optimizer, load_state(Path(checkpoint), "optimizer")
            )
        except ValueError as error:
            raise RunError(f"is of another optimizer: {error}", place=checkpoint) from error

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(
                load_state(Path(checkpoint), "others")["scaler"]
            )

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            set_rng_state(load_state(Path(checkpoint), f"rng-{self.args.process_index}"))

    @contextmanager
    def _defer_fsdp_gradient_reduction(self) -> Iterator[None]:
        """Of a step's forward passes only the last reduces gradients. transformers asks a config
        that a model of ours does not have."""
        self.model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self.model.set_requires_gradient_sync(True)

    def _closed(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError(
            "results are written by tunewright_hf.models.export, checkpoints by OwnCheckpoints"
        )

    _save = _save_optimizer_and_scheduler = _save_rng_state = _save_scaler = _closed
    _load_best_model = _push_from_checkpoint = _tune_save_checkpoint = _closed


def _trained(model: Any) -> list[tuple[str, torch.nn.Parameter]]:
    """What a checkpoint holds of a model: the rest is loaded again as it was at the beginning."""
    return [
        (name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad
    ]


def one_gpu(args: Any) -> None:
    """Train on one GPU where several are seen and no launcher was used: transformers would take
    nn.DataParallel.
    """
    if args.n_gpu > 1:
        args._n_gpu = 1


def silence(trainer: Any) -> None:
    """No prints of the trainer's own: what is to be said goes to the loggers as events."""
    trainer.remove_callback(PrinterCallback)


def keep_sharding(model: Any) -> None:
    """Tell transformers that the model owns its placement and the reduction of its gradients: no
    DDP round it."""
    unwrap_peft_model(model)._is_distributed_loading_by_transformers = True


def keep_model(model: Any) -> Callable[[], None]:
    """Remember what SFTTrainer changes in a model when it is made; the function that is returned
    changes it back.

    That is the fused head of its own loss, and use_cache: both would outlive the training, and be
    saved.
    """
    base = unwrap_peft_model(model)
    forward, use_cache = base.__dict__.get("forward"), base.config.use_cache

    def restore() -> None:
        base.__dict__.pop("forward", None)
        if forward is not None:
            base.forward = forward
        base.config.use_cache = use_cache

    return restore
