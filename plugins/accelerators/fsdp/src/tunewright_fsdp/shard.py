"""fully_shard on each layer of a model, then on what is left; DTensors made whole, and the way
back."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn import Parameter

from tunewright import RunError
from tunewright_hf.distributed.sharding import ShardingStrategy, check_not_quantized, on_first
from tunewright_hf.models.modules import base_model, layers, quantized_modules

if TYPE_CHECKING:
    from tunewright_fsdp import Fsdp


class FullyShard(ShardingStrategy):
    """Parameters are DTensors, and so are the optimizer's states."""

    def __init__(self, options: "Fsdp.Options") -> None:
        self.options = options

    def begin(self, model: Any, precision: str) -> None:
        """Raises RecipeError for quantized weights, RunError where a parameter was left whole."""
        check_not_quantized(quantized_modules(model), "fsdp")
        self._shard(model, next(model.parameters()).device.type)
        if whole := [
            name for name, each in model.named_parameters() if not isinstance(each, DTensor)
        ]:
            raise RunError(
                f"{whole[0]} and {len(whole) - 1} more are not sharded", place="accelerators"
            )

    def prepare(
        self,
        model: Any,
        optimizer: torch.optim.Optimizer,
        accelerator: Any,
        training: Any,
        rounding: Any = None,
    ) -> Any:
        self.optimizer, self.accelerator, self.rounding = optimizer, accelerator, rounding
        self.module = model  # its layers gather and reduce by themselves
        return model

    @contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        self.module.set_requires_gradient_sync(last)
        yield

    def _shard(self, model: Any, device: str) -> None:
        mesh = init_device_mesh(device, (torch.distributed.get_world_size(),))
        offload: OffloadPolicy = (
            CPUOffloadPolicy() if self.options.cpu_offload and device != "cpu" else OffloadPolicy()
        )
        base, reshard = base_model(model), self.options.reshard_after_forward
        name, _ = layers(base, ())
        for layer in base.get_submodule(name):
            fully_shard(layer, mesh=mesh, reshard_after_forward=reshard, offload_policy=offload)
        fully_shard(model, mesh=mesh, offload_policy=offload)

    def reshard(self, model: Any) -> None:
        # what a forward pass gathered stays whole until a backward pass: an optimizer that was made
        # then would train tensors that are thrown away, and a checkpoint would find no DTensor
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def local(self, parameter: Parameter) -> Tensor:
        return parameter.detach().to_local()  # type: ignore[attr-defined]

    def full_tensor(self, parameter: Parameter) -> Tensor:
        return parameter.detach().full_tensor()  # type: ignore[attr-defined]

    def load_full(self, parameter: Parameter, whole: Tensor) -> None:
        super().load_full(parameter, _spread_like(whole, parameter))

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        return _gathered(optimizer.state_dict())

    def put_optimizer_state(self, optimizer: Any, state: dict[str, Any]) -> None:
        """Every tensor that has the shape of its parameter is spread as that is."""
        parameters = [
            parameter for group in optimizer.param_groups for parameter in group["params"]
        ]

        def one(number: int, value: Any) -> Any:
            fits = isinstance(value, Tensor) and value.shape == parameters[number].shape
            return _spread_like(value, parameters[number]) if fits else value

        spread = {
            number: {name: one(int(number), value) for name, value in values.items()}
            for number, values in state["state"].items()
        }
        optimizer.load_state_dict(state | {"state": spread})


def _gathered(state: Any) -> Any:
    """The state, dicts and lists, with whole tensors of the first process in place of DTensors."""
    if isinstance(state, DTensor):
        return on_first(state.detach().full_tensor())
    if isinstance(state, dict):
        return {key: _gathered(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_gathered(value) for value in state)
    return state


def _spread_like(whole: Tensor, parameter: Any) -> Tensor:
    """A whole tensor as the DTensor `parameter` is: on its device, and in parts."""
    return distribute_tensor(
        whole.to(parameter.device), parameter.device_mesh, parameter.placements
    )
