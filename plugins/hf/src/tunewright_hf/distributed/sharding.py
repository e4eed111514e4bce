"""How a model lies over processes: whole on each of them, or in parts, as an accelerator says.

Checkpoints and results hold whole tensors, by name, so that they do not depend on how many
processes wrote them, nor on how the model lay over them.
"""

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Parameter
from torch.nn.parallel import DistributedDataParallel

from tunewright import RecipeError

__all__ = ["NoSharding", "ShardingStrategy", "check_may_shard", "check_not_quantized", "on_first"]


class NoSharding:
    """Each rank holds all of the model; with several ranks gradients are averaged (DDP). All ranks
    call each method together."""

    #: whether the forward pass computes under autocast; False: the model is cast instead
    autocasts = True
    #: whether `update` clips too; `clip` is then not called
    clips_in_update = False

    def begin(self, model: Any, precision: str) -> None:
        """Before the stage's trainer is made. precision: fp32, bf16, fp16 or pure_bf16."""

    def cast(self, model: Any, precision: str) -> None:
        """Give a model that is computed beside the trained one, such as a reference, the dtypes
        that that one has."""

    def reshard(self, model: Any) -> None:
        """Reshard, so that model.parameters() are the tensors that the optimizer holds."""

    def optimizer_made(self, optimizer: torch.optim.Optimizer) -> None:
        """When the optimizer holds the parameters as the model has them. Raises RecipeError where
        it does not fit."""

    def prepare(
        self,
        model: Any,
        optimizer: torch.optim.Optimizer,
        accelerator: Any,
        training: Any,
        rounding: Any = None,
    ) -> Any:
        """Wrap the model for training; the result is called in its place.

        training: recipe.Training. rounding: a StochasticRounding that steps the optimizer. Raises
        RunError where the result is not what was asked for.
        """
        self.optimizer, self.accelerator, self.rounding = optimizer, accelerator, rounding
        self.module: Any = model
        if accelerator.num_processes > 1:
            device = accelerator.device
            devices = [device] if device.type == "cuda" else None
            self.module = DistributedDataParallel(model, device_ids=devices)
        return self.module

    def accumulating(self, last: bool) -> AbstractContextManager[None]:
        """Round forward and backward pass of a micro-batch. Gradients are averaged over ranks in
        the last one of a step."""
        if last or self.accelerator.num_processes == 1:
            return nullcontext()
        return self.module.no_sync()  # type: ignore[no-any-return]

    def backward(self, loss: Tensor) -> None:
        self.accelerator.backward(loss)

    def clip(self, parameters: Sequence[Parameter], max_norm: float) -> float:
        """Clip gradients to the norm; 0 clips nothing. Returns their norm before, the same on all
        ranks."""
        if self.accelerator.scaler:
            self.accelerator.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm or torch.inf)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def update(self) -> tuple[bool, float | None]:
        """Step the optimizer. Returns whether it was stepped (fp16 leaves out steps that overflow),
        and the norm of the gradients where `clips_in_update`."""
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
        """In place of `update`, after `clip`."""
        if self.accelerator.scaler:
            self.accelerator.scaler.update()

    def free_gradients(self) -> None:
        self.optimizer.zero_grad()

    def local(self, parameter: Parameter) -> Tensor:
        """This rank's part of the parameter, as it is trained."""
        return parameter.detach()

    def optimizer_structure(self, optimizer: Any) -> Any:
        """The state of the optimizer as it lies here, of which only the structure is looked at."""
        return optimizer.state_dict()

    def shape(self, parameter: Parameter) -> tuple[int, ...]:
        return tuple(parameter.shape)

    def full_tensor(self, parameter: Parameter) -> Tensor:
        """The parameter as it is trained, whole."""
        return parameter.detach()

    def load_full(self, parameter: Parameter, whole: Tensor) -> None:
        """Give a parameter the values that `whole` gave."""
        with torch.no_grad():
            parameter.copy_(whole)

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """As `state_dict` of an optimizer that holds whole parameters; on the first process, others
        may give less."""
        return optimizer.state_dict()

    def put_optimizer_state(self, optimizer: Any, state: dict[str, Any]) -> None:
        """Raises ValueError where the state is of another optimizer."""
        optimizer.load_state_dict(state)

    def weights(
        self, model: Any, dtypes: dict[str, torch.dtype], names: Collection[str] | None = None
    ) -> dict[str, Tensor] | None:
        """The parameters by name on the CPU of rank 0; None: the model's own are whole.

        dtypes: what a parameter is written in, where that is not what it is kept in. names: of
        those that are wanted; None: all.
        """
        return None


class ShardingStrategy(NoSharding):
    """Each rank holds a shard of the model, or of what trains it. For accelerators, which set it as
    `request.sharding`: a subclass says how."""

    def weights(
        self, model: Any, dtypes: dict[str, torch.dtype], names: Collection[str] | None = None
    ) -> dict[str, Tensor] | None:
        self.reshard(model)
        found = {}
        for name, parameter in model.named_parameters():  # one at a time: no rank has room for all
            if names is None or name in names:
                dtype = dtypes.get(name, parameter.dtype)
                found[name] = on_first(self.full_tensor(parameter).to(dtype))
        return found


def on_first(tensor: Tensor) -> Tensor:
    """The tensor on the CPU of rank 0, nothing on others: none of them has room for a whole
    model."""
    return tensor.cpu() if torch.distributed.get_rank() == 0 else tensor.new_empty(0)


def is_sharded(model: Any) -> bool:
    """Whether its parameters are no tensors of their own, of which another model could hold the
    memory too."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def check_may_shard(run: Any, request: Any, name: str) -> None:
    """Raises RecipeError where there is one process, or where another accelerator spreads the
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


def check_not_quantized(quantized: Collection[str], name: str) -> None:
    """Raises RecipeError if a module of the model is quantized.

    quantized: full names of the quantized modules (tunewright_hf.models.modules.quantized_modules).
    name: the accelerator's.
    """
    if quantized:
        raise RecipeError(
            f"{min(quantized)} is quantized and cannot be sharded",
            place="accelerators",
            hint=f"take the quantizer out of the recipe, or {name}",
        )
