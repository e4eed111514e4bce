"""Models whose parameters are DTensors: gather full tensors, and load them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn import Parameter

from tunewright import RunError
from tunewright_hf.distributed.sharding import ShardingStrategy, on_first

__all__ = ["DTensorSharding", "check_all_sharded", "spread_like"]


class DTensorSharding(ShardingStrategy):
    """Base class for strategies that train DTensors in FSDP modules. A subclass shards the model in
    `begin`."""

    def wrapped(self, first: bool) -> Any:
        # its layers gather and reduce by themselves, and look each time what requires a gradient
        return self.model

    @contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        self.module.set_requires_gradient_sync(last)
        yield

    def reshard(self, model: Any) -> None:
        # parameters gathered in a forward pass stay gathered until a backward pass: an optimizer
        # created then would train temporary tensors, and a checkpoint would find no DTensors
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def local(self, parameter: Parameter) -> Tensor:
        return parameter.detach().to_local()  # type: ignore[attr-defined]

    def full_tensor(self, parameter: Parameter) -> Tensor:
        return parameter.detach().full_tensor()  # type: ignore[attr-defined]

    def load_full(self, parameter: Parameter, whole: Tensor) -> None:
        super().load_full(parameter, spread_like(whole, parameter))

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        return _gathered(optimizer.state_dict())

    def put_optimizer_state(self, optimizer: Any, state: dict[str, Any]) -> None:
        """Load optimizer states. Tensors with the shape of their parameter are sharded like it, if
        it is."""
        parameters = [
            parameter for group in optimizer.param_groups for parameter in group["params"]
        ]

        def one(number: int, value: Any) -> Any:
            own = parameters[number]
            fits = isinstance(value, Tensor) and value.shape == own.shape
            return spread_like(value, own) if fits and isinstance(own, DTensor) else value

        spread = {
            number: {name: one(int(number), value) for name, value in values.items()}
            for number, values in state["state"].items()
        }
        optimizer.load_state_dict(state | {"state": spread})


def check_all_sharded(model: Any) -> None:
    """Raise RunError where a parameter is whole on this rank."""
    whole = [name for name, each in model.named_parameters() if not isinstance(each, DTensor)]
    if whole:
        problem = f"{whole[0]} and {len(whole) - 1} more are not sharded"
        raise RunError(problem, place="accelerators")


def _gathered(state: Any) -> Any:
    """Gather the DTensors in a state of dicts and lists. Full tensors are on rank 0."""
    if isinstance(state, DTensor):
        return on_first(state.detach().full_tensor())
    if isinstance(state, dict):
        return {key: _gathered(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_gathered(value) for value in state)
    return state


def spread_like(whole: Tensor, parameter: Any) -> Tensor:
    """Shard a full tensor like the DTensor `parameter`, on its device."""
    return distribute_tensor(
        whole.to(parameter.device), parameter.device_mesh, parameter.placements
    )
