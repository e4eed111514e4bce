"""What the trainers of all stages share: the course of a training, and what transformers' Trainer
does our way."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tunewright.errors import RunError, Stopped
from tunewright.events import Notice
from tunewright.types import Data, OptimizerRequest, StageResult, TrainRequest
from tunewright_hf.batching import collators
from tunewright_hf.batching.batch_sampler import Batches, Unit, row_lengths
from tunewright_hf.batching.repeated_sampler import Repeated
from tunewright_hf.batching.row_stream import RowStream
from tunewright_hf.batching.streaming_sampler import StreamedBatches
from tunewright_hf.checkpoints.folder import latest_checkpoint, verify
from tunewright_hf.distributed.sharding import NoSharding
from tunewright_hf.models import precision
from tunewright_hf.models.export import save_result
from tunewright_hf.training.early_stopping import EarlyStopping
from tunewright_hf.training.private import OwnCheckpoints
from tunewright_hf.training.reporting import Reporter

AnyBatches = Batches | StreamedBatches


def fit(
    run: Any,
    request: TrainRequest,
    make: Callable[[AnyBatches, Reporter], Any],
    *,
    stage: str,
    packing: bool = False,
    repeats: int = 1,
    template: Any = None,
) -> StageResult:
    """Train `request.loaded`, from `request.checkpoint` on where there is one, and save what came
    of it.

    make: gives the StageTrainer. stage: its name in events. packing: several rows in one, without
    padding. repeats: steps on the same rows. template: the template plugin whose chat template and
    stop tokens are saved with the model; None leaves the tokenizer as it is. Raises Stopped after a
    save, RunError where a checkpoint or the result cannot be written or read.
    """
    loaded, training = request.loaded, request.training
    if packing:
        collators.check_packing(loaded.model.config)
        collators.check_rows_apart(loaded.model)
    batches = batches_of(run, request.data, training, packing, repeats)
    number_format = precision.resolve(training.precision, loaded.model.device)
    stored = precision.upcast_trainable(loaded.model, number_format)
    spread: NoSharding = request.sharding or NoSharding()
    spread.begin(loaded.model, number_format)
    reporter = Reporter(run, request, batches, stage)
    trainer = make(batches, reporter)
    checkpoint = latest_checkpoint(request.checkpoint.parent) if request.checkpoint else None
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    steps = trainer.state.global_step
    if reporter.stopped_at is not None:
        raise Stopped(
            f"stopped and saved at step {steps} of {batches.steps}", place=str(request.folder)
        )
    if isinstance(batches, StreamedBatches) and run.rank == 0:
        for line in batches.summary():
            run.emit(Notice(message=line))
    if training.load_best_model_at_end:
        trainer.take_best()
    trainer.finished()
    weights = spread.weights(loaded.model, stored, trained_only=loaded.saves == "adapter")
    if weights is None:
        precision.restore_dtypes(loaded.model, stored)
    path = request.folder / "model"
    if run.rank == 0:
        save_result(loaded, path, template, weights)
    trainer.accelerator.wait_for_everyone()
    counted = trainer.progress
    return StageResult(path, loaded.saves, steps, counted["tokens"], counted["metrics"])


def batches_of(run: Any, data: Data, training: Any, packing: bool, repeats: int = 1) -> AnyBatches:
    """Which rows this process trains on, pass by pass. Raises RecipeError and RunError."""
    share = {"packing": packing, "rank": run.rank, "world_size": run.world_size}
    if isinstance(data.train, RowStream):
        return StreamedBatches(data.train, training, **share)
    lengths, share = row_lengths(data.train), share | {"order": data.order}
    batches = (
        Repeated(lengths, training, repeats=repeats, **share)
        if repeats > 1
        else Batches(lengths, training, **share)
    )
    if batches.left_over and run.rank == 0:
        dropped = (
            f"the last {batches.left_over} rows are left out: too few for "
            f"{run.world_size} processes"
        )
        run.emit(Notice(message=dropped))
    return batches


def settings(request: TrainRequest, steps: int) -> dict[str, Any]:
    """The recipe's training section in transformers' words: arguments of TrainingArguments."""
    training, device = request.training, request.loaded.model.device
    number_format = precision.resolve(training.precision, device)
    same = (
        "learning_rate",
        "lr_scheduler_type",
        "warmup_steps",
        "weight_decay",
        "max_grad_norm",
        "seed",
        "per_device_train_batch_size",
        "per_device_eval_batch_size",
        "gradient_accumulation_steps",
        "activation_checkpointing",
    )
    return {
        "output_dir": str(request.folder / "checkpoints"),
        "max_steps": steps,
        "bf16": number_format == "bf16",
        "fp16": number_format == "fp16",
        "use_cpu": device.type == "cpu",
        "remove_unused_columns": False,
        "logging_strategy": "no",  # Reporter says when
        "save_strategy": "no",
        "eval_strategy": "no",
        "ignore_data_skip": isinstance(
            request.data.train, RowStream
        ),  # which finds its place itself
        "logging_nan_inf_filter": False,  # a loss that is no number is shown as such
        "ddp_find_unused_parameters": False,
        "report_to": "none",
        "disable_tqdm": True,
        "log_level": "error",
        **{name: getattr(training, name) for name in same},
        **(request.sharding or NoSharding()).arguments(),
    }


class StageTrainer(OwnCheckpoints):
    """Stands before a transformers Trainer among the bases of a class, and gives it our batches,
    optimizer, evaluation and checkpoints. A subclass says what a loss is.
    """

    #: transformers divides by the forward passes of a step, and DDP by the processes
    loss_is_scaled_for_ga = False
    save_stride = 1  #: checkpoints are written after steps that are a multiple of it

    train_dataset: Any  # these four are the Trainer's own
    data_collator: Any
    control: Any
    current_gradient_accumulation_steps: int
    run: Any
    request: TrainRequest
    batches: AnyBatches
    reporter: Reporter

    def begin(
        self, run: Any, request: TrainRequest, batches: AnyBatches, reporter: Reporter
    ) -> None:
        """Hold what the training is made of. To be called before the Trainer's own __init__."""
        self.run, self.request, self.batches, self.reporter = run, request, batches, reporter
        self.checkpoint_folder = request.folder / "checkpoints"
        self.checkpoint_limit = request.training.save_total_limit
        self.identity = batches.identity()
        self.progress: dict[str, Any] = {"tokens": 0, "metrics": {}}
        self.spread = request.sharding or NoSharding()
        self.evals: dict[str, Any] = request.data.evals
        self.best = EarlyStopping(request.training, list(self.evals))
        reporter.trainer = self

    def weight(self, batch: dict[str, Any]) -> float:
        """What the losses of a batch are divided by, when they are summed: trained tokens, or
        rows."""
        raise NotImplementedError

    def evaluate_one(self, name: str, rows: Any) -> dict[str, float]:
        """The metrics of one evaluation set, `loss` among them, the same on every process. The
        model is in eval mode."""
        raise NotImplementedError

    def step_ended(self) -> None:
        """After each step, on every process."""

    def finished(self) -> None:
        """After the last step, on every process, before the result is saved."""

    def logged(self) -> dict[str, float]:
        """Further metrics of the steps since the last report, on every process."""
        return {}

    @property
    def keeps_all_logits(self) -> bool:
        """Whether the loss has the logits of all positions in memory."""
        return False

    def get_train_dataloader(self) -> DataLoader:
        pin = self.args.device.type == "cuda"
        if isinstance(self.batches, StreamedBatches):
            if "stream" in self.progress:  # of a checkpoint
                self.batches.go_to(self.progress["stream"])
            own = (
                torch.Generator()
            )  # a loader draws a seed that nobody needs, when it begins: not from the model's
            return DataLoader(
                self.batches,
                batch_size=None,
                collate_fn=self.data_collator,
                pin_memory=pin,
                generator=own,
            )
        return DataLoader(
            self.train_dataset,
            batch_sampler=self.batches,
            collate_fn=self.data_collator,
            pin_memory=pin,
        )

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.spread.reshard(self.model)
            training = self.request.training
            trained = [
                (name, each) for name, each in self.model.named_parameters() if each.requires_grad
            ]
            if not trained:
                raise RunError("no parameter is trainable", place="adapter")
            request = OptimizerRequest(
                trained,
                self.model,
                training.learning_rate,
                training.weight_decay,
                self.request.loaded.learning_rate_scales,
                self.batches.steps,
            )
            self.optimizer = self.run.call("optimizer", "build_optimizer", request)
            self.spread.optimizer_made(self.optimizer)
        return self.optimizer

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Tensor]:
        """The batches of one step, and the sum of their weights over all processes."""
        batches = list(islice(epoch_iterator, num_batches))
        sums = self.total(
            torch.tensor(
                [sum(map(count, batches)) for count in (self.weight, collators.tokens)]
            ).double()
        )
        self.progress["tokens"] += int(sums[1])
        if isinstance(self.batches, StreamedBatches):
            self.progress["stream"] = self.batches.state()
        return batches, sums[0] if sums[0] > 0 else torch.ones(())

    def scale(self, weight: Any) -> float:
        """What a batch's sum of losses is multiplied by, to be its part of the step's mean."""
        return self.current_gradient_accumulation_steps * self.args.world_size / float(weight)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The metrics of each of the recipe's evaluation sets. What follows of them is set in
        `control`."""
        self.control.should_evaluate = (
            False  # done: transformers looks at it again at the end of the epoch
        )
        self.model.eval()
        found: dict[str, dict[str, float]] = {}
        for name, rows in self.evals.items():
            found[name] = self.evaluate_one(name, rows)
            self.reporter.evaluated(self.state.global_step, name, found[name])
        if self.best.wanted:
            if (
                self.best.judge(self.state.global_step, found)
                and self.request.training.load_best_model_at_end
            ):
                self.control.should_save = True
            if self.best.should_stop and self.state.global_step < self.state.max_steps:
                self.reporter.stop_early(self.state.global_step, self.control)
        return {
            f"{metric_key_prefix}_{name}_{key}": value
            for name in found
            for key, value in found[name].items()
        }

    def take_best(self) -> None:
        """Give the model the weights of the best evaluation, and say which that is."""
        last = self.state.global_step
        step, message, level = self.best.result(last)
        if step is not None:
            self.progress["metrics"] |= self.best.state["metrics"] | {"best_step": step}
            if step != last:
                folder = self.checkpoint_folder / f"step-{step}"
                verify(folder)
                self.load_weights(folder)
        if self.run.rank == 0:
            self.run.emit(Notice(message=message, level=level))

    def own_batches(
        self, rows: Any, units: list[Unit] | None = None
    ) -> Iterator[tuple[list[Any], bool]]:
        """This process's rows of each forward pass of an evaluation, and whether they count: a
        process without a row runs along, so that none waits for another. units: rows that stay
        together, in order; None takes each alone."""
        units = [[row] for row in range(len(rows))] if units is None else units
        processes = self.args.world_size
        size = self.args.per_device_eval_batch_size * processes
        for start in range(0, len(units), size):
            own = units[start : start + size][self.args.process_index :: processes]
            yield [rows[row] for unit in own or [units[start]] for row in unit], bool(own)

    def total(self, sums: Tensor) -> Tensor:
        """The sum over all processes, on the CPU."""
        if self.args.world_size == 1:
            return sums
        device = self.args.device
        sums = sums.float() if device.type == "mps" else sums  # which has no float64
        return self.accelerator.reduce(sums.to(device), "sum").cpu()

    def any_process(self, flag: bool) -> bool:
        """Whether it is true on any process: so all of them stop after the same step."""
        return bool(self.total(torch.tensor(float(flag))))


def moved(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch, and batches in it, on a device."""
    return {
        name: moved(part, device) if isinstance(part, dict) else part.to(device)
        for name, part in batch.items()
    }
