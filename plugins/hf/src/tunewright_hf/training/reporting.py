"""What a trainer does after each step, and what it tells the loggers."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
from transformers import TrainerCallback

from tunewright import events
from tunewright.types import TrainRequest


class Reporter(TrainerCallback):
    """Says when to log, evaluate, save and stop, and turns it into events. Events are made on rank
    0 only."""

    def __init__(self, run: Any, request: TrainRequest, batches: Any, stage: str) -> None:
        self.run, self.request, self.batches, self.stage = run, request, batches, stage
        self.trainer: Any = None  # set once it exists
        self.stopped_at: int | None = None  # step
        self._time, self._tokens = 0.0, 0  # of the last log
        self.counts: dict[str, int] = {}  # parameters

    def emit(self, kind: Callable[..., events.Event], **fields: Any) -> None:
        if self.run.rank == 0:
            self.run.emit(kind(stage=self.stage, **fields))

    def on_init_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.trainer.spread.trainer_made()
        # before processes share them out; two of 4 bits stand in a byte: the model knows
        self.counts = {
            "trainable_parameters": model.num_parameters(only_trainable=True),
            "parameters": model.num_parameters(),
        }

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._time, self._tokens = time.monotonic(), self.trainer.progress["tokens"]
        self.trainer.best.check(self.trainer.checkpoint_folder)
        if self.trainer.keeps_all_logits and self.run.rank == 0:
            slow = (
                "this model makes its logits in a way of its own: the loss keeps all of "
                "them in memory"
            )
            self.run.emit(events.Notice(message=slow, level="warning"))
        self.emit(
            events.StageStarted,
            number=self.request.number,
            of=len(self.run.recipe.stages),
            total_steps=state.max_steps,
            first_step=state.global_step,
            rows=len(self.request.data.train),
            **self.counts,
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        training, step, last = (
            self.request.training,
            state.global_step,
            state.global_step >= state.max_steps,
        )
        self.trainer.step_ended()
        state.epoch = self.batches.epoch_at(step)
        control.should_log = last or step == 1 or step % training.logging_steps == 0
        control.should_evaluate = bool(self.request.data.evals) and (
            last or self._evaluation_is_due(step)
        )
        control.should_save = training.save_steps is not None and (
            last or step % training.save_steps == 0
        )
        if self.trainer.any_process(self.request.stop_requested()) and not last:
            self.stopped_at = step
            control.should_log = control.should_save = control.should_training_stop = True

    def _evaluation_is_due(self, step: int) -> bool:
        training = self.request.training
        # where the best is kept, it waits for a step after which a checkpoint may be written
        stride = self.trainer.save_stride if training.load_best_model_at_end else 1
        if step % stride:
            return False
        if training.eval_steps:
            return step // training.eval_steps > (step - stride) // training.eval_steps
        return int(self.batches.epoch_at(step)) > int(self.batches.epoch_at(step - stride))

    def stop_early(self, step: int, control: Any) -> None:
        """End the training after an evaluation, as after its last step."""
        best, training = self.trainer.best, self.request.training
        control.should_training_stop, control.should_log, self.stopped_at = True, True, None
        # a checkpoint from which there is no way on: a run that dies now comes here again
        control.should_save = False
        if self.run.rank == 0:
            than = (
                f"by more than {training.early_stopping_threshold:g} "
                if training.early_stopping_threshold
                else ""
            )
            value = best.state["value"]
            so_far = (
                f"best: {value:.4g} at step {best.state['step']}"
                if value is not None
                else "it was never a number"
            )
            message = (
                f"stopped at step {step}: {best.metric} has not improved {than}in "
                f"{best.state['waited']} evaluations"
            )
            self.run.emit(events.Notice(message=f"{message} ({so_far})"))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        if "loss" not in logs:  # the summary at the end
            return
        now, tokens = time.monotonic(), self.trainer.progress["tokens"]
        names = ("loss", "learning_rate", "grad_norm", "epoch")
        metrics: dict[str, float] = {
            name: float(logs[name]) for name in names
        } | self.trainer.logged()
        metrics["tokens"] = tokens
        metrics["tokens_per_second"] = (tokens - self._tokens) / (now - self._time)
        metrics["memory"] = memory(args.device)
        self._time, self._tokens = now, tokens
        self.trainer.progress["metrics"]["loss"] = metrics["loss"]
        self.emit(
            events.Logged, step=state.global_step, total_steps=state.max_steps, metrics=metrics
        )

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        path = self.request.folder / "checkpoints" / f"step-{state.global_step}"
        self.emit(
            events.Saved,
            step=state.global_step,
            path=path.relative_to(Path(self.run.folder)).as_posix(),
        )

    def evaluated(self, step: int, name: str, metrics: dict[str, float]) -> None:
        self.trainer.progress["metrics"] |= {
            f"{name}_{key}": value for key, value in metrics.items()
        }
        self.emit(events.Evaluated, step=step, dataset=name, metrics=metrics)


def memory(device: torch.device) -> int:
    """Bytes: the peak of a GPU, or what the process holds now on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return psutil.Process().memory_info().rss
