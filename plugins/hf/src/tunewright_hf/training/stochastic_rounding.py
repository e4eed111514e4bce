"""Optimizer steps for bf16 weights with stochastic rounding.

bf16 has 8 significant bits: an update below 1/512 of a weight is lost when the sum is rounded to
nearest. Rounded up or down at random, with probability proportional to the distance, it is kept in
the mean (Zamirai et al. 2020, "Revisiting BFloat16 Training", arXiv:2010.06192).
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Parameter

CHUNK = 2**26  # weights converted to fp32 at a time: 1 GiB with gradients and two states


class StochasticRounding:
    """Steps an optimizer in fp32, some parameters at a time, and rounds weights and states to bf16.

    Random numbers depend on seed and step only: ranks with the same weights round alike, and so
    does a resumed run. fp32 parameters are stepped as usual.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.step_number = 0  # number of the current step; the loop sets it

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Step the optimizer; replaces `optimizer.step()`."""
        groups = optimizer.param_groups
        before = [dict(group) for group in groups]
        generators: dict[torch.device, torch.Generator] = {}
        for chunk in _chunks(before):
            for group, old, parameters in zip(groups, before, chunk, strict=True):
                group.update(old)  # counters of a group advance once per step
                group["params"] = [_widened(optimizer, each) for each in parameters]
            optimizer.step()
            for group, parameters in zip(groups, chunk, strict=True):
                for wide, parameter in zip(group["params"], parameters, strict=True):
                    if wide is not parameter:
                        self._narrow(optimizer, wide, parameter, generators)
        for group, old in zip(groups, before, strict=True):
            group["params"] = old["params"]

    def _narrow(
        self,
        optimizer: torch.optim.Optimizer,
        wide: Parameter,
        parameter: Parameter,
        generators: dict[torch.device, torch.Generator],
    ) -> None:
        device = _local(parameter).device
        if device not in generators:
            made = torch.Generator(device)
            generators[device] = made.manual_seed((self.seed << 24) + self.step_number)
        generator = generators[device]
        _local(parameter.detach()).copy_(stochastic_round(_local(wide.detach()), generator))
        if wide in optimizer.state:
            state = optimizer.state.pop(wide)
            optimizer.state[parameter] = {
                name: _narrowed(value, generator) for name, value in state.items()
            }


def stochastic_round(values: Tensor, generator: torch.Generator) -> Tensor:
    """Round fp32 to bf16, up or down at random, so that the mean is exact. inf and NaN are kept."""
    bits = values.contiguous().view(torch.int32)
    noise = torch.randint(
        0, 1 << 16, bits.shape, dtype=torch.int32, device=bits.device, generator=generator
    )
    rounded = ((bits + noise) & -(1 << 16)).view(torch.float32)
    return torch.where(values.isfinite(), rounded, values).to(torch.bfloat16)


def _chunks(groups: list[dict[str, Any]]) -> Iterator[list[list[Parameter]]]:
    """Parameters with a gradient, group by group, up to CHUNK weights at a time."""
    chunk: list[list[Parameter]] = [[] for _ in groups]
    size = 0
    for number, group in enumerate(groups):
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            if size and size + parameter.numel() > CHUNK:
                yield chunk
                chunk, size = [[] for _ in groups], 0
            chunk[number].append(parameter)
            size += parameter.numel()
    if size:
        yield chunk


def _widened(optimizer: torch.optim.Optimizer, parameter: Parameter) -> Parameter:
    """fp32 copy with gradient and state; the parameter itself if it is not bf16."""
    if parameter.dtype != torch.bfloat16:
        return parameter
    assert parameter.grad is not None
    wide = Parameter(parameter.detach().float())
    wide.grad = parameter.grad.float()
    if parameter in optimizer.state:
        state = optimizer.state.pop(parameter)
        optimizer.state[wide] = {
            name: value.float() if _is_bf16(value) else value for name, value in state.items()
        }
    return wide


def _narrowed(value: Any, generator: torch.Generator) -> Any:
    """A parameter's state in bf16; counters are kept."""
    if not (isinstance(value, Tensor) and value.dtype == torch.float32 and value.ndim > 0):
        return value
    rounded = stochastic_round(_local(value), generator)
    if isinstance(value, DTensor):
        return DTensor.from_local(
            rounded, value.device_mesh, value.placements, shape=value.shape, stride=value.stride()
        )
    return rounded


def _is_bf16(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.bfloat16


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
