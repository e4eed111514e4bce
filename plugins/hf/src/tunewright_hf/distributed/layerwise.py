"""Optimizers that step inside the backward pass, one parameter at a time.

A parameter is updated as soon as its gradient is complete, and the gradient is freed: no rank ever
holds the gradients of all parameters (Lv et al. 2023, "Full Parameter Fine-tuning for Large
Language Models with Limited Resources", arXiv:2306.09782). So there is nothing to accumulate, and
no norm of all gradients to clip by.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.nn import Parameter

__all__ = ["LayerwiseOptimizer"]


class LayerwiseOptimizer(torch.optim.Optimizer):
    """One optimizer per parameter, stepped by a hook of the backward pass.

    With several ranks each gradient is averaged over them before its update, in place of DDP.

    groups: parameter groups, as torch.optim.Optimizer takes them. build: makes the optimizer of one
    parameter, from a list with one group that holds that parameter alone.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        build: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
    ) -> None:
        super().__init__(groups, {})
        self._each: dict[Parameter, torch.optim.Optimizer] = {}
        self._group_of: dict[Parameter, int] = {}
        for number, group in enumerate(self.param_groups):
            for parameter in group["params"]:
                self._each[parameter] = build([{**group, "params": [parameter]}])
                self._group_of[parameter] = number
                parameter.register_post_accumulate_grad_hook(self._update)

    def _update(self, parameter: Parameter) -> None:
        gradient = parameter.grad
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            torch.distributed.all_reduce(gradient)
            gradient.div_(torch.distributed.get_world_size())  # type: ignore[union-attr]
        optimizer = self._each[parameter]
        # a schedule sets the rates of the groups here
        optimizer.param_groups[0]["lr"] = self.param_groups[self._group_of[parameter]]["lr"]
        optimizer.step()
        parameter.grad = None

    def step(self, closure: Any = None) -> None:
        """Do nothing: all parameters were updated in the backward pass."""

    def state_dict(self) -> dict[str, Any]:
        """The groups, and the state of each parameter's own optimizer, by its number."""
        return {
            "param_groups": super().state_dict()["param_groups"],
            "each": [optimizer.state_dict() for optimizer in self._each.values()],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state. Raises ValueError if it is from another optimizer or of other
        parameters."""
        states = state_dict.get("each")
        if states is None or len(states) != len(self._each):
            raise ValueError(f"expected the states of {len(self._each)} parameters")
        super().load_state_dict({"state": {}, "param_groups": state_dict["param_groups"]})
        for optimizer, state in zip(self._each.values(), states, strict=True):
            optimizer.load_state_dict(state)
            restore_dtypes(optimizer, state)


def restore_dtypes(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Restore the dtypes of saved states: torch casts them to the dtype of their parameter.

    saved: the result of `optimizer.state_dict()`.
    """
    states = saved.get("state", {})
    for group, old in zip(optimizer.param_groups, saved.get("param_groups", ()), strict=False):
        for parameter, number in zip(group["params"], old["params"], strict=False):
            now = optimizer.state.get(parameter, {})
            for name, value in states.get(number, {}).items():
                loaded = now.get(name)
                tensors = isinstance(value, torch.Tensor) and isinstance(loaded, torch.Tensor)
                if tensors and value.dtype != loaded.dtype:
                    now[name] = value.to(loaded.device)
