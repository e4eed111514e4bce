"""How a model lies over processes: whole on each of them, or in parts, as an accelerator says.

Checkpoints and results hold whole tensors, by name, so that they do not depend on how many
processes wrote them, nor on how the model lay over them.
"""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Parameter

from tunewright import RecipeError


class NoSharding:
    """Each process holds all of the model. All processes must call each method together."""

    def arguments(self) -> dict[str, Any]:
        """More for transformers' TrainingArguments."""
        return {}

    def begin(self, model: Any, number_format: str) -> None:
        """Before the trainer is made. number_format: fp32, bf16 or fp16, what the forward pass
        computes in."""

    def cast(self, model: Any, number_format: str) -> None:
        """Give a model that is computed beside the trained one, a reference, the number formats
        that that one has."""

    def trainer_made(self) -> None:
        """When transformers' Trainer has been made, and before the stage's own trainer has."""

    def reshard(self, model: Any) -> None:
        """Before parameters are asked for: have each be as the optimizer knows it, whatever was
        computed before."""

    def optimizer_made(self, optimizer: torch.optim.Optimizer) -> None:
        """When the optimizer holds the parameters as the model has them. Raises RecipeError where
        it does not fit."""

    def ready(self, trainer: Any) -> None:
        """When model and optimizer are as they are trained. Raises RunError where they are not what
        was asked for."""

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
        self, model: Any, formats: dict[str, torch.dtype], *, trained_only: bool
    ) -> dict[str, Tensor] | None:
        """The parameters by name on the CPU of the first process; None: the model's own are whole.

        formats: what a parameter is written in, where that is not what it is kept in.
        """
        return None


class ShardingStrategy(NoSharding):
    """Each process holds a part of the model, or of what trains it. For accelerators, which set it
    as `request.sharding`: a subclass says how."""

    def weights(
        self, model: Any, formats: dict[str, torch.dtype], *, trained_only: bool
    ) -> dict[str, Tensor] | None:
        self.reshard(model)
        found = {}
        for (
            name,
            parameter,
        ) in model.named_parameters():  # one at a time, so that no process holds all of them
            if parameter.requires_grad or not trained_only:
                found[name] = on_first(
                    self.full_tensor(parameter).to(formats.get(name, parameter.dtype))
                )
        return found


def on_first(tensor: Tensor) -> Tensor:
    """The tensor on the CPU of the first process, nothing on others: none of them has room for a
    whole model."""
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
