"""A recipe's own training steps on its largest batch, with all storages counted."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tunewright.types import LoadedModel, RunContext, StageResult, TrainRequest
from tunewright_hf.distributed.group import group_timeout
from tunewright_hf.distributed.layerwise import LayerwiseOptimizer
from tunewright_hf.distributed.private import make_accelerator
from tunewright_hf.distributed.sharding import NoSharding
from tunewright_hf.models import precision
from tunewright_hf.planning.storages import Segment, StorageCounter
from tunewright_hf.training.block_switching import BlockSwitching
from tunewright_hf.training.callbacks import TrainingCallback
from tunewright_hf.training.fit import batches_of, edited, start_sharding, trained_names
from tunewright_hf.training.loop import TrainingLoop
from tunewright_hf.training.reporting import Reporter
from tunewright_hf.training.stage_trainer import TrainingSetup

__all__ = ["Measurement", "StepMeter"]

_OTHER_BLOCKS = 3  # besides layers: embeddings, the last norm, and the head


@dataclass
class Measurement:
    """Memory and work of a training step."""

    segments: dict[Any, Segment] = field(default_factory=dict)
    held: Counter[str] = field(default_factory=Counter)  # between two steps: part → bytes
    flops: int = 0  # of one step
    tokens: int = 0  # of one step, padding included
    seconds: float = 0.0  # of the last step

    @property
    def peak(self) -> Segment:
        """The part of the step that takes most."""
        return max(self.segments.values(), key=lambda each: each.peak)


class StepMeter(TrainingCallback):
    """Takes the place of `fit`: steps on all rows of `request.data.train` at once.

    counter: active while it runs. stack: full name and original numbers of the model's layers;
    None where it has no list of layers.
    """

    def __init__(self, counter: StorageCounter, stack: tuple[str, list[int]] | None) -> None:
        self.counter, self.stack = counter, stack
        self.found = Measurement()
        self.in_backward = False

    def __call__(
        self,
        run: RunContext,
        request: TrainRequest,
        make: Callable[[TrainingSetup], Any],
        *,
        stage: str,
    ) -> StageResult:
        """Set up as `fit` does, train a few steps, and return without saving."""
        loaded, training = request.loaded, request.training
        number_format = precision.resolve(training.precision, loaded.model.device)
        sharding = _Marked(self)
        autocast = number_format if number_format in ("bf16", "fp16") else "no"
        accelerator = make_accelerator(loaded.model.device, autocast, group_timeout(run))
        start_sharding(sharding, loaded, number_format)
        batches = batches_of(run, request.data, training, packing=False)
        known = {name for name, _ in loaded.model.named_parameters()}
        self.counter.part = "activations"
        self.counter.vocab = loaded.model.config.get_text_config().vocab_size
        trainer = make(
            TrainingSetup(run, request, batches, accelerator, sharding, loaded.model.device, stage)
        )
        trainer.collate = edited(trainer.collate, request.batch_edits)
        loop = TrainingLoop(trainer, Reporter(run, stage), trained_names(loaded, known))
        self.counter.part = "optimizer"
        loop.set_up(resume=False)
        self.counter.part = "activations"
        loop.callbacks.append(self)
        loop.checked_at = 0  # nothing is saved
        trainer.prepare_step = self._prepared(trainer.prepare_step)
        self._mark(loaded)
        for number in range(self._steps(loop)):
            self._step(loop)
            if number == 0:  # before this, there was no optimizer state
                for key in [key for key in self.counter.segments if key != "update"]:
                    del self.counter.segments[key]
        return StageResult(request.folder, loaded.saves)

    def _steps(self, loop: TrainingLoop) -> int:
        """Two; where parts of the model are trained in turn, so many that each has its turn."""
        switching = [each for each in loop.callbacks if isinstance(each, BlockSwitching)]
        for each in switching:
            each.interval = 1
        layers = len(self.stack[1]) if self.stack else loop.model.config.num_hidden_layers
        return layers + _OTHER_BLOCKS + 1 if switching else 2

    def _step(self, loop: TrainingLoop) -> None:
        trainer, training = loop.trainer, loop.training
        rows = [trainer.train_rows[number] for number in range(len(trainer.train_rows))]
        # a second micro-batch meets the gradients of the first one, as all further ones do
        passes = min(2, training.gradient_accumulation_steps)
        drawn = [trainer.collate(rows) for _ in range(passes)]
        self.counter.flops, begun = 0, time.perf_counter()
        before = trainer.progress["tokens"]
        loop.train_step(drawn)
        self.found.tokens = (trainer.progress["tokens"] - before) // passes
        if loop.trainer.device.type == "cuda":
            torch.cuda.synchronize()
        self.found.seconds = (time.perf_counter() - begun) / passes
        self.found.flops = self.counter.flops // passes
        self.counter.enter(None)
        self.found.segments, self.found.held = self.counter.segments, Counter(self.counter.bytes)

    def _prepared(self, prepare: Callable[..., Any]) -> Callable[..., Any]:
        """prepare_step, whose forward passes, as those of rollouts, are a part of their own."""

        def prepared(batches: list[Any]) -> Any:
            self.counter.enter("prepare")
            self.in_backward = True  # so that layers are not told apart
            made = prepare(batches)
            self.in_backward = False
            self.counter.enter("start")
            return made

        return prepared

    # ---- where a step is ---------------------------------------------------------------------

    def on_step_begin(self, loop: TrainingLoop) -> None:
        self.counter.enter("start")

    def on_gradients_ready(self, loop: TrainingLoop) -> None:
        self.counter.enter("update")
        self.counter.part = "optimizer"

    def on_step_end(self, loop: TrainingLoop) -> None:
        self.counter.part = "activations"
        if isinstance(loop.optimizer, LayerwiseOptimizer):  # which updates in the backward pass
            for each in tree_leaves(loop.optimizer.state_dict()):
                if isinstance(each, Tensor):
                    self.counter.move(each, "optimizer")

    def _mark(self, loaded: LoadedModel) -> None:
        """Have the counter told which layer runs, and what is a gradient."""
        for parameter in loaded.model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._gradient_made)
        if self.stack is None:
            return
        name, numbers = self.stack
        for number, layer in zip(numbers, loaded.model.get_submodule(name), strict=True):
            layer.register_forward_pre_hook(self._layer_begins(number))
            layer.register_forward_hook(self._layer_ends(number, last=number == numbers[-1]))

    def _gradient_made(self, parameter: Tensor) -> None:
        if parameter.grad is not None:  # an optimizer that steps in the backward pass frees it
            self.counter.move(parameter.grad, "gradients")

    def _layer_begins(self, number: int) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            if not self.in_backward:  # where it is recomputed
                self.counter.enter(("forward", number))

        return hook

    def _layer_ends(self, number: int, *, last: bool) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if self.in_backward:
                return
            states = output[0] if isinstance(output, tuple) else output
            if states.requires_grad:
                states.register_hook(lambda _: self.counter.enter(("backward", number)))
            if last:
                self.counter.enter("head")

        return hook


class _Marked(NoSharding):
    """Tells when the backward pass runs."""

    def __init__(self, meter: StepMeter) -> None:
        self.meter = meter

    def backward(self, loss: Tensor) -> None:
        self.meter.in_backward = True
        self.meter.counter.enter("backward")
        super().backward(loss)
        self.meter.in_backward = False
        self.meter.counter.enter("start")
