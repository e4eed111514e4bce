"""The training loop of all stages: batches → forward, backward → clip → step → log → evaluate →
save."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader

from tunewright import RecipeError, events
from tunewright.plugin import Optimizer
from tunewright.types import OptimizerRequest
from tunewright_hf.batching.streaming_sampler import StreamedBatches
from tunewright_hf.checkpoints.folder import verify
from tunewright_hf.training import checkpointing
from tunewright_hf.training.callbacks import callbacks_of
from tunewright_hf.training.early_stopping import EarlyStopping
from tunewright_hf.training.finite import FiniteGuard
from tunewright_hf.training.reporting import Reporter
from tunewright_hf.training.scheduling import build_scheduler
from tunewright_hf.training.stage_trainer import StageTrainer, has_modes, moved, set_mode
from tunewright_hf.training.stochastic_rounding import StochasticRounding


class TrainingLoop:
    """The course of a training, from setup to the last step.

    trainer: gives the losses. trained: names of the parameters that are trained. Callbacks may read
    all attributes.
    """

    def __init__(self, trainer: StageTrainer, reporter: Reporter, trained: frozenset[str]) -> None:
        self.trainer, self.reporter, self.trained_names = trainer, reporter, trained
        self.run, self.request, self.model = trainer.run, trainer.request, trainer.model
        self.training, self.batches = trainer.request.training, trainer.batches
        self.accelerator, self.sharding = trainer.accelerator, trainer.sharding
        self.step, self.total_steps = 0, self.batches.steps  # optimizer steps
        self.stopped = False  # by the user, after a save
        self.stopped_early = False  # since no evaluation was better
        self.checkpoint_folder = trainer.request.folder / "checkpoints"
        self.early_stopping = EarlyStopping(self.training, list(trainer.evals))
        self.guard = FiniteGuard(self.run, self.training.max_bad_steps, self.checkpoint_folder)
        self.grad_norm: float | None = None  # of the last step, before clipping
        self._logged_at = self._checked_at = -1

    def train(self, *, resume: bool) -> None:
        """Take all steps. resume: from the newest intact checkpoint on."""
        self._setup(resume)
        self.reporter.started(self)
        batches = self._data_loader()
        while self.step < self.total_steps and not (self.stopped or self.stopped_early):
            for callback in self.callbacks:
                callback.on_step_begin(self)
            drawn = list(islice(batches, self.training.gradient_accumulation_steps))
            self._train_step(drawn)
            self._log_evaluate_save()

    def trained(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Name and parameter of all that is trained, whatever is frozen at this moment."""
        parameters = self.model.named_parameters()
        return [(name, each) for name, each in parameters if name in self.trained_names]

    # ---- setup -----------------------------------------------------------------------------------

    def _setup(self, resume: bool) -> None:
        self.parameter_counts = {
            "trainable_parameters": sum(each.numel() for _, each in self.trained()),
            "parameters": self.model.num_parameters(),  # of 4 bits two stand in a byte: it knows
        }
        training = self.training
        if training.activation_checkpointing:
            self.model.activation_checkpointing_enable({"use_reentrant": False})
        self.sharding.reshard(self.model)
        self.optimizer = self.trainer.optimizer = self._build_optimizer()
        self.sharding.optimizer_made(self.optimizer)
        self.rounding = StochasticRounding(training.seed) if training.stochastic_rounding else None
        module = self.sharding.prepare(
            self.model, self.optimizer, self.accelerator, training, self.rounding
        )
        self.forward = _autocasting(module, self.accelerator)
        self.scheduler = build_scheduler(self.run, training, self.optimizer, self.total_steps)
        self.callbacks = list(callbacks_of(self.model, self.optimizer))
        if resume:
            checkpointing.load(self, *checkpointing.newest_intact(self))
        set_mode(self.optimizer, training=True)
        self.early_stopping.check(self.checkpoint_folder)

    def _build_optimizer(self) -> torch.optim.Optimizer:
        training, loaded = self.training, self.request.loaded
        plugin = self.run.plugin("optimizer")
        self.steps_in_backward = isinstance(plugin, Optimizer) and plugin.steps_in_backward
        if self.steps_in_backward:
            for name, needed in (("gradient_accumulation_steps", 1), ("max_grad_norm", 0)):
                if (given := getattr(training, name)) != needed:
                    raise RecipeError(
                        f"is {given}, and the optimizer updates inside the backward pass",
                        place=f"training.{name}",
                        hint=f"set {needed}, or another optimizer",
                    )
        request = OptimizerRequest(
            self.trained(),
            self.model,
            training.learning_rate,
            training.weight_decay,
            loaded.learning_rate_scales,
            self.total_steps,
        )
        return self.run.call("optimizer", "build_optimizer", request)  # type: ignore[no-any-return]

    def _data_loader(self) -> Iterator[Any]:
        """Batches from the next step on, all epochs long."""
        # a loader draws a seed that nobody needs, when it begins: not from the model's generator
        facts: dict[str, Any] = {
            "collate_fn": self.trainer.collate,
            "pin_memory": self.trainer.device.type == "cuda",
            "generator": torch.Generator(),
        }
        if isinstance(self.batches, StreamedBatches):
            if "stream" in self.trainer.progress:
                self.batches.go_to(self.trainer.progress["stream"])
            return iter(DataLoader(self.batches, batch_size=None, **facts))
        done = self.step * self.training.gradient_accumulation_steps
        rest = islice(self.batches, done, None)
        return iter(DataLoader(self.trainer.train_rows, batch_sampler=rest, **facts))

    # ---- a step ----------------------------------------------------------------------------------

    def _train_step(self, drawn: list[Any]) -> None:
        """Forward and backward passes over the batches of one step, and the update."""
        self.model.train()
        batches, weight = self.trainer.prepare_step(drawn)
        if isinstance(self.batches, StreamedBatches):
            self.trainer.progress["stream"] = self.batches.state()
        # gradients are averaged over micro-batches and ranks, losses are sums over `weight`
        count = len(batches)
        scale = count * self.run.data_world_size / (weight or 1.0)
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
            # fp16 finds its scale by gradients that overflow
            finding = self.accelerator.scaler and self.accelerator.scaler.get_scale() > 1
            norm = None if finding else self.grad_norm
            if self.guard.is_finite(step, loss, norm, updated=False):
                updated, _ = self.sharding.update()
            else:
                updated = False
                self.sharding.skip_update()
        if updated:
            self.scheduler.step()
            if self._checked_at < 0:
                self._checked_at = step
                checkpointing.check_can_be_saved(self)

    # ---- after a step ----------------------------------------------------------------------------

    def _log_evaluate_save(self) -> None:
        training, step = self.training, self.step
        last = step >= self.total_steps
        stop = self.trainer.any_rank(self.request.stop_requested()) and not last
        better = False
        if last or stop or step == 1 or step % training.logging_steps == 0:
            self._log()
        if self.trainer.evals and (last or self._evaluation_is_due()):
            better = self._evaluate()
        if self.stopped_early:
            # no checkpoint: there would be no way on from it. A run that dies now comes here again
            self.reporter.notice(self.early_stopping.message(step))
            self._log()
            return
        due = training.save_steps is not None and (last or step % training.save_steps == 0)
        if stop or due or better:
            self._save()
        self.stopped = stop

    def _log(self) -> None:
        if self._logged_at == self.step:
            return
        self._logged_at, progress = self.step, self.trainer.progress
        total, steps = progress["running_loss"]
        progress["running_loss"] = [0.0, 0]
        metrics = {"loss": total / steps, "learning_rate": self.optimizer.param_groups[0]["lr"]}
        if self.grad_norm is not None:
            metrics["grad_norm"] = self.grad_norm
        metrics["epoch"] = self.batches.epoch_at(self.step)
        progress["metrics"]["loss"] = metrics["loss"]
        self.reporter.logged(self, metrics | self.trainer.logged())

    def _evaluation_is_due(self) -> bool:
        # where the best is kept, it waits for a step after which a checkpoint may be written
        stride = self.trainer.save_stride if self.training.load_best_model_at_end else 1
        step, every = self.step, self.training.eval_steps
        if step % stride:
            return False
        if every:
            return step // every > (step - stride) // every
        return int(self.batches.epoch_at(step)) > int(self.batches.epoch_at(step - stride))

    def _evaluate(self) -> bool:
        """Evaluate on all sets: whether a checkpoint is to be written, since it is the best."""
        self.model.eval()
        found: dict[str, dict[str, float]] = {}
        with self.trainer.evaluation_mode():
            for name, rows in self.trainer.evals.items():
                with torch.no_grad(), self.trainer.autocast():
                    found[name] = self.trainer.evaluate_one(name, rows)
                self.trainer.progress["metrics"] |= {
                    f"{name}_{key}": value for key, value in found[name].items()
                }
                self.reporter.emit(
                    events.Evaluated, step=self.step, dataset=name, metrics=found[name]
                )
        for callback in self.callbacks:
            callback.on_evaluate(self, found)
        if not self.early_stopping.wanted:
            return False
        better = self.early_stopping.judge(self.step, found)
        self.stopped_early = self.early_stopping.should_stop and self.step < self.total_steps
        return better and self.training.load_best_model_at_end

    def _save(self) -> None:
        folder = checkpointing.save(self)
        self.reporter.saved(self.step, folder)
        for callback in self.callbacks:
            callback.on_save(self, folder)

    def finish(self) -> None:
        """After the last step: give the model the weights of the result. Raises RunError where they
        are not finite."""
        if isinstance(self.batches, StreamedBatches):
            for line in self.batches.summary():
                self.reporter.notice(line)
        if self.training.load_best_model_at_end:
            self._take_best()
        if self.training.activation_checkpointing:
            self.model.activation_checkpointing_disable()
        set_mode(self.optimizer, training=False)
        checkpointing.check_finite(self)
        self.trainer.finished()

    def _take_best(self) -> None:
        """Give the model the weights of the best evaluation, and say which that is."""
        step, message, level = self.early_stopping.result(self.step)
        if step is not None:
            best = self.early_stopping.state["metrics"] | {"best_step": step}
            self.trainer.progress["metrics"] |= best
            if step != self.step:
                folder = self.checkpoint_folder / f"step-{step}"
                verify(folder)
                checkpointing.load_weights(self, folder)
                if has_modes(self.optimizer):  # which are switched between by its state
                    checkpointing.load_optimizer(self, folder)
        self.reporter.notice(message, level)


def _autocasting(module: Any, accelerator: Any) -> Callable[..., Any]:
    def forward(**inputs: Any) -> Any:
        with accelerator.autocast():
            return module(**inputs)

    return forward
