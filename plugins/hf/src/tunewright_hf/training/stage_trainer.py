"""Interface between a stage and the training loop: the loss of a batch, and metrics."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from tunewright import RecipeError
from tunewright.events import Notice
from tunewright.types import RunContext, TrainRequest
from tunewright_hf.batching import collators
from tunewright_hf.batching.batch_sampler import Batches
from tunewright_hf.batching.streaming_sampler import StreamedBatches
from tunewright_hf.batching.units import Unit
from tunewright_hf.distributed.sharding import NoSharding
from tunewright_hf.media.collation import media_rows
from tunewright_hf.models.media_options import MediaOptions
from tunewright_hf.models.media_parts import frozen_parts
from tunewright_hf.models.modules import base_model, within
from tunewright_hf.training.callbacks import TrainingCallback

__all__ = [
    "Batch",
    "StageTrainer",
    "TrainingSetup",
    "moved",
    "set_mode",
]

AnyBatches = Batches | StreamedBatches
Batch = dict[str, Any]  # {"inputs": what the model gets, "labels", …}
_SHOWN, _EACH = 10, 100  # rows left out: the first are told one by one, then each hundredth


@dataclass
class TrainingSetup:
    """Inputs of a stage's trainer."""

    run: RunContext
    request: TrainRequest
    batches: AnyBatches
    accelerator: Accelerator
    sharding: NoSharding
    device: torch.device
    stage: str  # its name in events


class StopRequested(Exception):
    """The run was asked to stop: what is in progress is given up. Raised on all ranks together."""


class ZeroGradients(TrainingCallback):
    """Gives parameters that no row of a step used a gradient of zeros, so that an optimizer moves
    them as it does where another rank has used them."""

    def __init__(self, parameters: list[Tensor]) -> None:
        self._parameters = parameters

    def on_gradients_ready(self, loop: Any) -> None:
        if loop.sharding.clips_in_update:  # DeepSpeed has taken all gradients from the parameters
            return
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)


class StageTrainer:
    """Loss and metrics of one stage. The loop calls it and knows nothing else of the stage.

    A subclass implements `compute_loss`, `weight` and `evaluate_one`. All ranks call each method
    together.
    """

    leaves_out = False  # whether rows without readable media may be left out

    def __init__(self, setup: TrainingSetup) -> None:
        self.run, self.request, self.batches = setup.run, setup.request, setup.batches
        self.accelerator, self.sharding, self.device = (
            setup.accelerator,
            setup.sharding,
            setup.device,
        )
        self.model = setup.request.loaded.model  # never wrapped
        self.tokenizer = setup.request.loaded.tokenizer
        self.rank, self.world_size = (
            setup.accelerator.process_index,
            setup.accelerator.num_processes,
        )
        self.train_rows: Any = setup.request.data.train
        self.evals: dict[str, Any] = setup.request.data.evals
        #: for collators; None if the model takes no media
        self.media = media_rows(
            setup.request.loaded,
            setup.request.data.media_root,
            self._media_in_every_batch(setup),
            self._skips_media(setup),
        )
        #: see TrainingCallback
        self.training_callbacks: list[TrainingCallback] = [
            ZeroGradients(self._trained_media(setup))
        ]
        self.collate: Any = list  # collator; a subclass sets it
        self.stage = setup.stage
        self.step = 0  # optimizer steps done; set by the loop
        #: counters of the training, saved in checkpoints
        self.progress: dict[str, Any] = {"tokens": 0, "metrics": {}}
        self.optimizer: Any = None  # set by the loop, before the first step
        self._evaluations = 0  # depth of nested evaluations

    def _media_in_every_batch(self, setup: TrainingSetup) -> bool:
        """Whether ranks would wait for each other if one of them had no media in a batch."""
        if setup.request.loaded.processor is None or self.world_size == 1:
            return False
        return bool(self._trained_media(setup)) or type(setup.sharding) is not NoSharding

    def _trained_media(self, setup: TrainingSetup) -> list[Tensor]:
        """The trained parameters of towers and projectors."""
        if setup.request.loaded.processor is None:
            return []
        model = base_model(setup.request.loaded.model)
        parts = frozen_parts(model, MediaOptions())
        named = model.named_parameters()
        return [each for name, each in named if each.requires_grad and within(name, parts)]

    def _skips_media(self, setup: TrainingSetup) -> bool:
        """Whether rows are left out whose media cannot be read. Raises RecipeError."""
        if setup.request.training.unreadable_media == "error":
            return False
        place, hint = "training.unreadable_media", "leave it out"
        if setup.request.loaded.processor is None:
            raise RecipeError("the model takes no media", place=place, hint=hint)
        if not self.leaves_out:
            raise RecipeError(f"{setup.stage} leaves no rows out", place=place, hint=hint)
        return True

    def report_unreadable(self, batch: Any) -> Any:
        """Count the rows that a batch leaves out, and say what is wrong with them. Returns the
        batch."""
        for problem in batch.pop("unreadable", ()) if isinstance(batch, dict) else ():
            count = self.progress["unreadable_media"] = self.progress.get("unreadable_media", 0) + 1
            if count <= _SHOWN or count % _EACH == 0:
                message = f"{problem}; its example is not trained ({count:,} so far)"
                self.run.emit(Notice(message=message, level="warning"))
        return batch

    # ---- what a subclass gives -------------------------------------------------------------------

    def compute_loss(self, forward: Any, batch: Batch, scale: float) -> Tensor:
        """Loss of a batch, a scalar: the sum of its losses × `scale`, plus the family's auxiliary
        loss.

        forward: the model as wrapped for training, with autocast. The loop averages the result over
        the micro-batches of the step and over ranks.
        """
        raise NotImplementedError

    def weight(self, batch: Batch) -> float:
        """Denominator for the summed losses of a batch: its trained tokens, or its rows."""
        raise NotImplementedError

    def evaluate_one(self, name: str, rows: Any) -> dict[str, float]:
        """Metrics of one evaluation set, including `loss`, the same on every rank.

        The model is in evaluation mode, under autocast.
        """
        raise NotImplementedError

    def prepare_step(self, batches: list[Any]) -> tuple[list[Batch], float]:
        """The batches of one step for training, and the sum of their weights over all ranks.
        batches: from the data loader."""
        counts = [sum(map(count, batches)) for count in (self.weight, collators.tokens)]
        weight, tokens = self.total(torch.tensor(counts).double()).tolist()
        # several ranks may have the same batch
        self.progress["tokens"] += int(tokens) * self.run.data_world_size // self.world_size
        return batches, weight

    def step_ended(self) -> None:
        """Hook after each step."""

    def rank_state(self) -> dict[str, Any]:
        """State of this rank alone that a checkpoint needs besides `progress`; empty: none."""
        return {}

    def load_rank_state(self, state: dict[str, Any]) -> None:
        """Continue from a `rank_state` that was not empty, of as many ranks as now."""

    def finished(self) -> None:
        """Hook after the last step, before the result is saved."""

    def logged(self) -> dict[str, float]:
        """Further metrics of the steps since the last log."""
        return {}

    @property
    def keeps_all_logits(self) -> bool:
        """Whether the loss keeps the logits of all positions in memory."""
        return False

    # ---- what it may use -------------------------------------------------------------------------

    def autocast(self) -> AbstractContextManager[None]:
        """Autocast to the precision of the forward pass."""
        return self.accelerator.autocast()  # type: ignore[no-any-return]

    @contextmanager
    def evaluation_mode(self) -> Iterator[None]:
        """Switch an optimizer with modes to the parameters for evaluation and sampling."""
        self._evaluations += 1
        if self._evaluations == 1:
            set_mode(self.optimizer, training=False)
        try:
            yield
        finally:
            self._evaluations -= 1
            if not self._evaluations:
                set_mode(self.optimizer, training=True)

    def own_batches(
        self, rows: Any, units: list[Unit] | None = None
    ) -> Iterator[tuple[list[Any], bool]]:
        """This rank's rows of each forward pass of an evaluation, and whether they count.

        A rank that has run out gets rows that do not count, to keep collectives in step. units:
        rows that stay together, in order; None takes each alone. Raises StopRequested.
        """
        units = [[row] for row in range(len(rows))] if units is None else units
        ranks = self.run.data_world_size
        size = self.request.training.per_device_eval_batch_size * ranks
        for start in range(0, len(units), size):
            self.check_stop()
            own = units[start : start + size][self.run.data_rank :: ranks]
            yield [rows[row] for unit in own or [units[start]] for row in unit], bool(own)

    def total(self, sums: Tensor) -> Tensor:
        """Sum over all ranks, on the CPU."""
        if self.world_size == 1:
            return sums
        sums = sums.float() if self.device.type == "mps" else sums  # which has no float64
        return self.accelerator.reduce(sums.to(self.device), "sum").cpu()

    def check_stop(self) -> None:
        """Raise StopRequested if any rank was asked to stop. For all ranks together."""
        if self.any_rank(self.request.stop_requested()):
            raise StopRequested

    def any_rank(self, flag: bool) -> bool:
        """Whether `flag` is true on any rank."""
        return bool(self.total(torch.tensor(float(flag))))


def moved(batch: Batch, device: torch.device) -> Batch:
    """The batch, with nested batches, on a device. Values other than tensors are kept."""
    made = {}
    ahead = device.type == "cuda"  # copy while launched kernels still run
    for name, part in batch.items():
        if isinstance(part, dict):
            made[name] = moved(part, device)
        else:
            is_tensor = isinstance(part, Tensor)
            made[name] = part.to(device, non_blocking=ahead) if is_tensor else part
    return made


def has_modes(optimizer: Any) -> bool:
    """Whether parameters must be switched before they are evaluated, sampled from or exported
    (schedule-free: Defazio et al. 2024, arXiv:2405.15682)."""
    return hasattr(optimizer, "eval") and hasattr(optimizer, "train")


def set_mode(optimizer: Any, *, training: bool) -> None:
    """Switch an optimizer with modes; others are left unchanged."""
    if has_modes(optimizer):
        optimizer.train() if training else optimizer.eval()
