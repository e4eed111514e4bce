"""What a stage gives to the training loop: the loss of a batch, and metrics."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from tunewright.types import TrainRequest
from tunewright_hf.batching import collators
from tunewright_hf.batching.batch_sampler import Batches, Unit
from tunewright_hf.batching.streaming_sampler import StreamedBatches
from tunewright_hf.distributed.sharding import NoSharding

__all__ = [
    "Batch",
    "TrainingSetup",
    "moved",
]

AnyBatches = Batches | StreamedBatches
Batch = dict[str, Any]  # {"inputs": what the model gets, "labels", …}


@dataclass
class TrainingSetup:
    """What a stage's trainer is made of."""

    run: Any  # tunewright.types.RunContext
    request: TrainRequest
    batches: AnyBatches
    accelerator: Accelerator
    sharding: NoSharding
    device: torch.device
    stage: str  # its name in events


class StageTrainer:
    """Loss and metrics of one stage. The loop calls it and knows nothing else of the stage.

    A subclass gives `compute_loss`, `weight` and `evaluate_one`. All ranks call each method
    together.
    """

    save_stride = 1  #: checkpoints are written after steps that are a multiple of it

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
        self.collate: Any = list  # rows → batch; a subclass sets it
        self.stage = setup.stage
        self.step = 0  # optimizer steps done; the loop counts
        #: what is counted while training; a checkpoint keeps it
        self.progress: dict[str, Any] = {"tokens": 0, "metrics": {}}
        self.optimizer: Any = None  # set by the loop, before the first step
        self._evaluations = 0  # that are under way, one in another

    # ---- what a subclass gives -------------------------------------------------------------------

    def compute_loss(self, forward: Any, batch: Batch, scale: float) -> Tensor:
        """Loss of a batch, a scalar: its sum of losses × `scale`, plus the family's auxiliary loss.

        forward: the model as it is wrapped for training, with autocast. The loop averages the
        result over the micro-batches of the step and over ranks.
        """
        raise NotImplementedError

    def weight(self, batch: Batch) -> float:
        """What the summed losses of a batch are divided by: its trained tokens, or its rows."""
        raise NotImplementedError

    def evaluate_one(self, name: str, rows: Any) -> dict[str, float]:
        """Metrics of one evaluation set, `loss` among them, the same on every rank.

        The model is in evaluation mode, under autocast.
        """
        raise NotImplementedError

    def prepare_step(self, batches: list[Any]) -> tuple[list[Batch], float]:
        """The batches of one step as they are trained on, and the sum of their weights over all
        ranks. batches: as the data loader gives them."""
        counts = [sum(map(count, batches)) for count in (self.weight, collators.tokens)]
        weight, tokens = self.total(torch.tensor(counts).double()).tolist()
        self.progress["tokens"] += int(tokens)
        return batches, weight

    def step_ended(self) -> None:
        """After each step."""

    def finished(self) -> None:
        """After the last step, before the result is saved."""

    def logged(self) -> dict[str, float]:
        """Further metrics of the steps since the last log."""
        return {}

    @property
    def keeps_all_logits(self) -> bool:
        """Whether the loss has the logits of all positions in memory."""
        return False

    # ---- what it may use -------------------------------------------------------------------------

    def autocast(self) -> AbstractContextManager[None]:
        """The precision that the forward pass computes in."""
        return self.accelerator.autocast()  # type: ignore[no-any-return]

    @contextmanager
    def evaluation_mode(self) -> Iterator[None]:
        """While this lasts, parameters are those to evaluate and sample with, where the optimizer
        has modes."""
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
        rows that stay together, in order; None takes each alone.
        """
        units = [[row] for row in range(len(rows))] if units is None else units
        ranks = self.run.data_world_size
        size = self.request.training.per_device_eval_batch_size * ranks
        for start in range(0, len(units), size):
            own = units[start : start + size][self.run.data_rank :: ranks]
            yield [rows[row] for unit in own or [units[start]] for row in unit], bool(own)

    def total(self, sums: Tensor) -> Tensor:
        """The sum over all ranks, on the CPU."""
        if self.world_size == 1:
            return sums
        sums = sums.float() if self.device.type == "mps" else sums  # which has no float64
        return self.accelerator.reduce(sums.to(self.device), "sum").cpu()

    def any_rank(self, flag: bool) -> bool:
        """Whether it is true on any rank."""
        return bool(self.total(torch.tensor(float(flag))))


def moved(batch: Batch, device: torch.device) -> Batch:
    """The batch, and batches in it, on a device. What is no tensor stays as it is."""
    made = {}
    ahead = device.type == "cuda"  # copied while kernels that were launched before still run
    for name, part in batch.items():
        if isinstance(part, dict):
            made[name] = moved(part, device)
        else:
            is_tensor = isinstance(part, Tensor)
            made[name] = part.to(device, non_blocking=ahead) if is_tensor else part
    return made


def has_modes(optimizer: Any) -> bool:
    """Whether parameters are to be switched before they are evaluated, sampled with or exported
    (schedule-free: Defazio et al. 2024, arXiv:2405.15682)."""
    return hasattr(optimizer, "eval") and hasattr(optimizer, "train")


def set_mode(optimizer: Any, *, training: bool) -> None:
    """Switch an optimizer with modes; others have none."""
    if has_modes(optimizer):
        optimizer.train() if training else optimizer.eval()
