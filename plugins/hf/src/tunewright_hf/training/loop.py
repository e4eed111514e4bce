"""The training loop of all stages: batches → forward, backward → clip → step → log → evaluate →
save."""

from collections.abc import Callable
from itertools import islice
from typing import Any

import torch

from tunewright import RecipeError
from tunewright.plugin import Optimizer
from tunewright.types import OptimizerRequest
from tunewright_hf.batching.streaming_sampler import StreamedBatches
from tunewright_hf.distributed.layerwise import LayerwiseOptimizer
from tunewright_hf.distributed.sharding import NoSharding
from tunewright_hf.training import checkpointing
from tunewright_hf.training.callbacks import callbacks_of
from tunewright_hf.training.data_loading import load_batches
from tunewright_hf.training.early_stopping import EarlyStopping
from tunewright_hf.training.evaluation import evaluate
from tunewright_hf.training.finite import FiniteGuard
from tunewright_hf.training.intervals import is_due
from tunewright_hf.training.layer_decay import layer_decay_scales
from tunewright_hf.training.param_groups import learning_rate_scales
from tunewright_hf.training.reporting import Reporter
from tunewright_hf.training.scheduling import build_scheduler
from tunewright_hf.training.stage_trainer import (
    StageTrainer,
    StopRequested,
    moved,
    set_mode,
)
from tunewright_hf.training.stochastic_rounding import StochasticRounding

__all__ = ["TrainingLoop"]


class TrainingLoop:
    """Training of one stage, from setup to the last step.

    trainer: computes losses. trained: names of the trained parameters. Callbacks may read all
    attributes.
    """

    def __init__(self, trainer: StageTrainer, reporter: Reporter, trained: frozenset[str]) -> None:
        self.trainer, self.reporter, self.trained_names = trainer, reporter, trained
        self.run, self.request, self.model = trainer.run, trainer.request, trainer.model
        self.training, self.batches = trainer.request.training, trainer.batches
        self.accelerator, self.sharding = trainer.accelerator, trainer.sharding
        self.step, self.total_steps = 0, self.batches.steps  # optimizer steps
        self.stopped = False  # by the user, after a save
        self.stopped_early = False  # by early stopping
        self.checkpoint_folder = trainer.request.folder / "checkpoints"
        self.early_stopping = EarlyStopping(self.training, list(trainer.evals))
        self.guard = FiniteGuard(self.run, self.training.max_bad_steps, self.checkpoint_folder)
        self.grad_norm: float | None = None  # of the last step, before clipping
        #: step in which it was checked that checkpoints can hold the state; -1: not yet
        self.checked_at = -1
        self._saved_at = 0

    def train(self, *, resume: bool) -> None:
        """Run all steps. resume: continue from the newest intact checkpoint."""
        self.set_up(resume)
        self.reporter.started(self)
        batches = load_batches(self.trainer, self.step)
        try:
            self.trainer.check_stop()
            if self.trainer.progress.pop("unevaluated", False):  # it was stopped in this evaluation
                self._evaluate_save(stop=False)
            while self.step < self.total_steps and not (self.stopped or self.stopped_early):
                drawn = list(islice(batches, self.training.gradient_accumulation_steps))
                self.train_step(drawn)
                self._log_evaluate_save()
        except StopRequested:  # in an evaluation or in rollouts: the last step is complete
            self.stopped = True
            if self.step != self._saved_at:
                self._save()

    def trained(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Names and parameters of everything that is trained, even if frozen at the moment."""
        parameters = self.model.named_parameters()
        return [(name, each) for name, each in parameters if name in self.trained_names]

    # ---- setup -----------------------------------------------------------------------------------

    def set_up(self, resume: bool) -> None:
        """Build the optimizer, the schedule and everything else that the steps need."""
        self.parameter_counts = {
            "trainable_parameters": sum(each.numel() for _, each in self.trained()),
            "parameters": self.model.num_parameters(),  # counts packed 4-bit parameters correctly
        }
        training = self.training
        if training.activation_checkpointing:
            self.model.activation_checkpointing_enable({"use_reentrant": False})
        self.sharding.reshard(self.model)
        self.optimizer = self.trainer.optimizer = self._build_optimizer()
        self.sharding.optimizer_made(self.optimizer)
        self.rounding = StochasticRounding(training.seed) if training.stochastic_rounding else None
        self.sharding.prepare(self.model, self.optimizer, self.accelerator, training, self.rounding)
        self.forward = _autocasting(self.sharding, self.accelerator)
        self.scheduler = build_scheduler(self.run, training, self.optimizer, self.total_steps)
        self.callbacks = list(callbacks_of(self.model, self.trainer, self.optimizer))
        if resume:
            checkpointing.resume(self)
            self._saved_at = self.step
        set_mode(self.optimizer, training=True)

    def _build_optimizer(self) -> torch.optim.Optimizer:
        training, loaded = self.training, self.request.loaded
        plugin = self.run.plugin("optimizer")
        self.steps_in_backward = isinstance(plugin, Optimizer) and plugin.steps_in_backward
        trained = self.trained()
        names = [name for name, _ in trained]
        own = layer_decay_scales(loaded, names, training.layer_lr_decay)
        scales = learning_rate_scales(names, training.learning_rate_scales, own)
        request = OptimizerRequest(
            trained,
            self.model,
            training.learning_rate,
            training.weight_decay,
            scales,
            self.total_steps,
        )
        made = self.run.call("optimizer", "build_optimizer", request)
        alone = self.trainer.world_size == 1 or isinstance(made, LayerwiseOptimizer)
        if self.steps_in_backward and not alone:
            raise RecipeError(
                f"{plugin.name} updates inside the backward pass, before gradients are averaged "
                "over ranks",
                place="optimizer",
                hint="build a tunewright_hf.distributed.layerwise.LayerwiseOptimizer",
            )
        return made  # type: ignore[no-any-return]

    # ---- a step ----------------------------------------------------------------------------------

    def train_step(self, drawn: list[Any]) -> None:
        """Run forward and backward passes over the batches of one step, and the update."""
        self.model.train()
        batches, weight = self.trainer.prepare_step(drawn)
        for callback in self.callbacks:
            callback.on_step_begin(self)
        self.sharding.step_begins()
        if isinstance(self.batches, StreamedBatches):
            self.trainer.progress["stream"] = self.batches.state()
        # gradients are averaged over micro-batches and ranks, losses are sums divided by `weight`
        count = len(batches)
        scale = count * self.trainer.world_size / (weight or 1.0)
        total = torch.zeros((), device=self.trainer.device)
        for number, batch in enumerate(batches, 1):
            with self.sharding.accumulating(last=number == count):
                on_device = moved(batch, self.trainer.device)
                loss = self.trainer.compute_loss(self.forward, on_device, scale) / count
                self.sharding.backward(loss)
            total += loss.detach()
        self._update(float(self.trainer.total(total)) / self.trainer.world_size)
        running = self.trainer.progress.setdefault("running_loss", [0.0, 0])
        running[:] = running[0] + self.loss, running[1] + 1
        self.step += 1
        self.trainer.step = self.step
        for callback in self.callbacks:
            callback.on_step_end(self)
        self.sharding.free_gradients()
        self.trainer.step_ended()

    def _update(self, loss: float) -> None:
        """Clip and step, unless loss or gradients are not finite. loss: mean over ranks."""
        self.loss, step = loss, self.step + 1
        for callback in self.callbacks:
            callback.on_gradients_ready(self)
        if self.rounding:
            self.rounding.step_number = step
        if self.steps_in_backward or self.sharding.clips_in_update:
            updated, self.grad_norm = self.sharding.update()
            self.guard.is_finite(step, loss, self.grad_norm, updated=True)
        else:
            parameters = [each for _, each in self.trained()]
            self.grad_norm = self.sharding.clip(parameters, self.training.max_grad_norm)
            # fp16 finds its loss scale by gradients that overflow
            finding = self.accelerator.scaler and self.accelerator.scaler.get_scale() > 1
            norm = None if finding else self.grad_norm
            if self.guard.is_finite(step, loss, norm, updated=False):
                updated, _ = self.sharding.update()
            else:
                updated = False
                self.sharding.skip_update()
        if updated:
            self.scheduler.step()
            if self.checked_at < 0:
                self.checked_at = step
                checkpointing.check_can_be_saved(self)

    # ---- after a step ----------------------------------------------------------------------------

    def _log_evaluate_save(self) -> None:
        training, step = self.training, self.step
        last = step >= self.total_steps
        stop = self.trainer.any_rank(self.request.stop_requested()) and not last
        if last or stop or step == 1 or step % training.logging_steps == 0:
            self._log()
        self._evaluate_save(stop)

    def _evaluate_save(self, stop: bool) -> None:
        """stop: save, and end after it."""
        step = self.step
        last, better = step >= self.total_steps, False
        if self.trainer.evals and (last or self._evaluation_is_due()):
            better = self._evaluate()
        if self.stopped_early:
            # no checkpoint: training could not continue from it. A run that is killed now resumes
            # from an earlier one, and stops here again
            self.reporter.notice(self.early_stopping.message(step))
            self._log()
            return
        if stop or better or self._checkpoint_is_due(last):
            self._save()
        self.stopped = stop

    def _log(self) -> None:
        progress = self.trainer.progress
        total, steps = progress["running_loss"]
        if not steps:  # it was logged
            return
        progress["running_loss"] = [0.0, 0]
        rate = float(self.optimizer.param_groups[0]["lr"])
        metrics = {"loss": total / steps, "learning_rate": rate}
        if self.grad_norm is not None:
            metrics["grad_norm"] = self.grad_norm
        metrics["epoch"] = self.batches.epoch_at(self.step)
        progress["metrics"]["loss"] = metrics["loss"]
        for callback in self.callbacks:
            metrics |= callback.logged()
        self.reporter.logged(self, metrics | self.trainer.logged())

    def _checkpoint_is_due(self, last: bool) -> bool:
        every, per_epoch = self.training.save_steps, self.training.saves_per_epoch
        if every is None and per_epoch is None:
            return False
        return last or is_due(self.batches.epoch_at, self.step, every, per_epoch)

    def _evaluation_is_due(self) -> bool:
        every, per_epoch = self.training.eval_steps, self.training.evals_per_epoch or 1
        return is_due(self.batches.epoch_at, self.step, every, per_epoch)

    def _evaluate(self) -> bool:
        """Evaluate on all sets. Returns whether to write a checkpoint, because it is the best."""
        found = evaluate(self)
        for callback in self.callbacks:
            callback.on_evaluate(self, found)
        if not self.early_stopping.wanted:
            return False
        better = self.early_stopping.judge(self.step, found)
        self.stopped_early = self.early_stopping.should_stop and self.step < self.total_steps
        return better and self.training.load_best_model_at_end

    def _save(self) -> None:
        folder = checkpointing.save(self)
        self._saved_at = self.step
        self.reporter.saved(self.step, folder)
        for callback in self.callbacks:
            callback.on_save(self, folder)

    def finish(self) -> None:
        """After the last step: load the weights of the result into the model. Raises RunError if
        they are not finite."""
        if isinstance(self.batches, StreamedBatches):
            for line in self.batches.summary():
                self.reporter.notice(line)
        if self.training.load_best_model_at_end:
            checkpointing.take_best(self)
        if self.training.activation_checkpointing:
            self.model.activation_checkpointing_disable()
        set_mode(self.optimizer, training=False)
        checkpointing.check_finite(self)
        self.trainer.finished()


def _autocasting(sharding: NoSharding, accelerator: Any) -> Callable[..., Any]:
    def forward(**inputs: Any) -> Any:
        with accelerator.autocast():
            return sharding.module(**inputs)

    return forward
