"""Distribution of a model over ranks: a full copy on each, or sharded by an accelerator.

Checkpoints and results hold full tensors by name, so they do not depend on the number of ranks or
on the sharding.
"""

import zlib
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import Parameter
from torch.nn.parallel import DistributedDataParallel

from tunewright import RecipeError, RunError
from tunewright.types import LoadedModel, RunContext
from tunewright_hf.distributed.layerwise import LayerwiseOptimizer, restore_dtypes

__all__ = [
    "NoSharding",
    "SetDtypes",
    "ShardingStrategy",
    "active_names",
    "check_can_gather",
    "check_may_shard",
    "check_not_quantized",
    "on_first",
]

SetDtypes = Callable[[nn.Module], None]


class NoSharding:
    """No sharding: each rank holds the whole model; with several ranks, gradients are averaged
    (DDP). All ranks call each method together."""

    #: whether the forward pass runs under autocast; False: the model is cast instead
    autocasts = True
    #: whether `update` also clips; `clip` is then not called
    clips_in_update = False
    #: whether a rank can compute alone within `gathered`, as generation does
    gathers = True

    def begin(self, loaded: LoadedModel, precision: str, set_dtypes: SetDtypes) -> None:
        """Before the stage's trainer is made: give the model the dtypes that it trains in.

        precision: fp32, bf16, fp16 or pure_bf16. set_dtypes: does so for the parameters of a
        module. Weights are in memory twice while it runs: a subclass calls it for what it shards
        next.
        """
        set_dtypes(loaded.model)

    def cast(self, model: Any, precision: str) -> None:
        """Cast a model that is used beside the trained one, such as a reference, to the trained
        model's dtypes."""

    def gathered(self, model: Any) -> AbstractContextManager[None]:
        """Context in which each rank holds all parameters, and its forward passes, without
        gradients, need no other rank: ranks generate different numbers of tokens."""
        return nullcontext()

    def add(self, module: nn.Module) -> None:
        """Shard a module that a stage has added to the model after `begin`."""

    def reshard(self, model: Any) -> None:
        """Reshard, so that model.parameters() are the tensors that the optimizer holds."""

    def optimizer_made(self, optimizer: torch.optim.Optimizer) -> None:
        """Called when the optimizer holds the model's parameters. Raises RecipeError if it does not
        fit."""

    def prepare(
        self,
        model: Any,
        optimizer: torch.optim.Optimizer,
        accelerator: Any,
        training: Any,
        rounding: Any = None,
    ) -> None:
        """Wrap the model for training as `self.module`, which is called in its place.

        training: recipe.Training. rounding: a StochasticRounding that steps the optimizer. Raises
        RunError if the result is not what was requested.
        """
        self.optimizer, self.accelerator, self.rounding = optimizer, accelerator, rounding
        self.model, self.module, self.active = model, model, active_names(model)
        if accelerator.num_processes > 1:
            check_same_on_all_ranks(self.active, accelerator.device)
            self.module = self.wrapped(first=True)

    def step_begins(self) -> None:
        """Follow an optimizer or a callback that has switched which parameters are trained.

        Raises RunError where ranks now train different ones.
        """
        if self.accelerator.num_processes == 1 or (now := active_names(self.model)) == self.active:
            return
        check_same_on_all_ranks(now, self.accelerator.device)
        self.active, self.module = now, None  # what held gradients of others is freed first
        self.module = self.wrapped(first=False)

    def wrapped(self, first: bool) -> Any:
        """The model that averages gradients over ranks: of the parameters that require one now.
        first: before the first step."""
        if isinstance(self.optimizer, LayerwiseOptimizer):
            return self.model  # which averages them itself, in the backward pass
        device = self.accelerator.device
        devices = [device] if device.type == "cuda" else None
        # at first all take the weights of rank 0
        return DistributedDataParallel(self.model, device_ids=devices, init_sync=first)

    def accumulating(self, last: bool) -> AbstractContextManager[None]:
        """Context of a micro-batch's forward and backward pass. Gradients are averaged over ranks
        in the last one of a step."""
        if last or not isinstance(self.module, DistributedDataParallel):
            return nullcontext()
        return self.module.no_sync()  # type: ignore[no-any-return]

    def backward(self, loss: Tensor) -> None:
        self.accelerator.backward(loss)

    def clip(self, parameters: Sequence[Parameter], max_norm: float) -> float:
        """Clip gradients to the norm; 0: no clipping. Returns their norm before, the same on all
        ranks."""
        if self.accelerator.scaler:
            self.accelerator.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm or torch.inf)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def update(self) -> tuple[bool, float | None]:
        """Step the optimizer. Returns whether it was stepped (fp16 skips steps that overflow), and
        the gradient norm if `clips_in_update`."""
        scaler = self.accelerator.scaler
        if scaler is not None:
            before = scaler.get_scale()
            scaler.step(self.optimizer)
            scaler.update()
            return scaler.get_scale() >= before, None
        if self.rounding is not None:
            self.rounding.step(self.optimizer)
        else:
            self.optimizer.step()
        return True, None

    def skip_update(self) -> None:
        """Replaces `update` if it is skipped, after `clip`."""
        if self.accelerator.scaler:
            self.accelerator.scaler.update()

    def free_gradients(self) -> None:
        self.optimizer.zero_grad()

    def local(self, parameter: Parameter) -> Tensor:
        """This rank's shard of the parameter, as trained."""
        return parameter.detach()

    def optimizer_structure(self, optimizer: Any) -> Any:
        """The optimizer's state on this rank, of which only the structure is used."""
        return optimizer.state_dict()

    def shape(self, parameter: Parameter) -> tuple[int, ...]:
        return tuple(parameter.shape)

    def full_tensor(self, parameter: Parameter) -> Tensor:
        """Full tensor of the trained parameter."""
        return parameter.detach()

    def load_full(self, parameter: Parameter, whole: Tensor) -> None:
        """Load a parameter from the result of `full_tensor`."""
        with torch.no_grad():
            parameter.copy_(whole)

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """`state_dict` of the optimizer with full tensors, on rank 0; other ranks may return
        less."""
        return optimizer.state_dict()

    def put_optimizer_state(self, optimizer: Any, state: dict[str, Any]) -> None:
        """Load an optimizer state. Raises ValueError if it is from another optimizer."""
        optimizer.load_state_dict(state)
        restore_dtypes(optimizer, state)

    def weights(
        self, model: Any, dtypes: dict[str, torch.dtype], names: Collection[str] | None = None
    ) -> dict[str, Tensor] | None:
        """Parameters, and the buffers that a model is saved with, by name on the CPU of rank 0.
        None: the model's own are complete.

        dtypes: dtypes to write if they differ from those of training. names: parameters to return;
        None: all.
        """
        return None


class ShardingStrategy(NoSharding):
    """Base class for accelerators that shard the model or its training state across ranks. They set
    it as `request.sharding`."""

    gathers = False

    def weights(
        self, model: Any, dtypes: dict[str, torch.dtype], names: Collection[str] | None = None
    ) -> dict[str, Tensor] | None:
        self.reshard(model)
        found = {}
        # one at a time: no rank has memory for all
        for name, parameter in model.named_parameters():
            if names is None or name in names:
                dtype = dtypes.get(name, parameter.dtype)
                found[name] = on_first(self.full_tensor(parameter).to(dtype))
        if names is None:
            stored = model.state_dict().keys()
            found |= {name: on_first(b) for name, b in model.named_buffers() if name in stored}
        return found


def active_names(model: Any) -> frozenset[str]:
    """Names of the parameters that require a gradient now."""
    return frozenset(name for name, each in model.named_parameters() if each.requires_grad)


def check_same_on_all_ranks(names: Collection[str], device: torch.device) -> None:
    """Raises RunError on all ranks where they have different names."""
    number = zlib.crc32("\n".join(sorted(names)).encode())
    extremes = torch.tensor([number, -number], device=device)
    torch.distributed.all_reduce(extremes, torch.distributed.ReduceOp.MAX)
    if extremes[0] != -extremes[1]:
        raise RunError(
            "ranks train different parameters: what switches them has to choose the same on all",
            place="optimizer",
            hint="draw from a generator of its own, with the recipe's seed",
        )


def on_first(tensor: Tensor) -> Tensor:
    """The tensor on the CPU of rank 0, an empty one on others: they have no memory for a whole
    model."""
    return tensor.cpu() if torch.distributed.get_rank() == 0 else tensor.new_empty(0)


def is_sharded(model: Any) -> bool:
    """Whether parameters are shards, so that another model cannot share their memory."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def check_may_shard(run: RunContext, request: Any, name: str) -> None:
    """Raise RecipeError if there is only one process, or if another accelerator shards the
    model."""
    if run.world_size == 1:
        hint = "set launch.processes, or take it out of the recipe"
        raise RecipeError(
            f"{name} needs several processes, and there is one", place="accelerators", hint=hint
        )
    if request.sharding is not None:
        hint = "leave one of them in the recipe"
        raise RecipeError(
            f"{name} and another accelerator spread the model", place="accelerators", hint=hint
        )


def check_can_gather(request: Any, place: str) -> None:
    """Raise RecipeError if a rank cannot generate alone. request: TrainRequest."""
    if request.sharding is not None and not request.sharding.gathers:
        raise RecipeError(
            "generation needs all parameters on each rank, which this accelerator does not gather",
            place=place,
            hint="take fsdp, or deepspeed with stage: 2, in its place",
        )


def check_not_quantized(quantized: Collection[str], name: str) -> None:
    """Raise RecipeError if a module of the model is quantized.

    quantized: full names of the quantized modules (tunewright_hf.models.modules.quantized_modules).
    name: the accelerator's.
    """
    if quantized:
        raise RecipeError(
            f"{min(quantized)} is quantized and cannot be sharded",
            place="accelerators",
            hint=f"take the quantizer out of the recipe, or {name}",
        )
