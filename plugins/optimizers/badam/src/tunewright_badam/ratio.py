"""BAdam's ratio mode: AdamW on some entries of each weight."""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Parameter

from tunewright_hf.training.callbacks import TrainingCallback

if TYPE_CHECKING:
    from tunewright_badam import BAdam
    from tunewright_hf.training.loop import TrainingLoop


class RatioAdamW(torch.optim.Optimizer):
    """AdamW on `update_ratio` of each parameter's entries, others every `switch_interval` steps.

    Entries depend on the seed and the number of the period. States are of the chosen entries, and
    begin anew with them. seed: training.seed.
    """

    def __init__(self, groups: list[dict[str, Any]], options: "BAdam.Options", seed: int) -> None:
        super().__init__(groups, {})
        self.options, self.seed, self.period = options, seed, -1
        self.entries: dict[Parameter, slice | Tensor] = {}
        self.training_callbacks = [EntrySwitching(self)]

    def parameters(self) -> list[Parameter]:
        return [each for group in self.param_groups for each in group["params"]]

    def switch(self, period: int) -> None:
        """Choose the entries of a period and drop the states of those before."""
        if period == self.period:
            return
        self.period = period
        self.state.clear()
        generator = torch.Generator().manual_seed((self.seed << 24) + period)
        scattered = self.options.mask_mode == "scatter"
        for each in self.parameters():
            size = each.numel()
            count = math.ceil(self.options.update_ratio * size)
            if scattered:
                self.entries[each] = scatter(size, count, generator).to(each.device)
            else:
                start = int(torch.randint(size - count + 1, (), generator=generator))
                self.entries[each] = slice(start, start + count)

    def mask_gradients(self) -> None:
        """Set gradients of entries that are not trained to 0, so that they do not count in the norm
        by which gradients are clipped."""
        for each in self.parameters():
            if each.grad is not None:
                flat, chosen = each.grad.view(-1), self.entries[each]
                kept = flat[chosen].clone()
                flat.zero_()
                flat[chosen] = kept

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update the chosen entries of all parameters that have a gradient."""
        if self.period < 0:  # without a training loop
            self.switch(0)
        for group in self.param_groups:
            for each in group["params"]:
                if each.grad is not None:
                    self._step(each, group)

    def _step(self, each: Parameter, group: dict[str, Any]) -> None:
        options, chosen = self.options, self.entries[each]
        gradient = each.grad.reshape(-1)[chosen]  # type: ignore[union-attr]
        state = self.state[each]
        if not state:
            state |= {"step": 0, "exp_avg": torch.zeros_like(gradient)}
            state["exp_avg_sq"] = torch.zeros_like(gradient)
        state["step"] += 1
        mean = state["exp_avg"].lerp_(gradient, 1 - options.beta1)
        squares = state["exp_avg_sq"].mul_(options.beta2)
        squares.addcmul_(gradient, gradient, value=1 - options.beta2)
        correction = (1 - options.beta2 ** state["step"]) ** 0.5
        scale = (squares.sqrt() / correction).add_(options.eps)
        rate = group["lr"] / (1 - options.beta1 ** state["step"])
        flat = each.view(-1)
        values = flat[chosen] * (1 - group["lr"] * group["weight_decay"])
        flat[chosen] = values.addcdiv_(mean, scale, value=-rate)

    def state_dict(self) -> dict[str, Any]:
        """State as torch has it, the period, and positions of scattered entries."""
        found = [self.entries.get(each) for each in self.parameters()]
        positions = [each for each in found if isinstance(each, Tensor)]
        return {**super().state_dict(), "period": self.period, "positions": positions}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state. Raises ValueError if it is from another optimizer or of other
        parameters."""
        if "period" not in state_dict:
            raise ValueError("expected the states of badam in mode ratio")
        rest = {name: state_dict[name] for name in ("state", "param_groups")}
        super().load_state_dict(rest)
        loaded = dict(self.state)
        self.switch(state_dict["period"])  # which chooses the same entries, and drops states
        self.state.update(loaded)


class EntrySwitching(TrainingCallback):
    """Switches entries at the steps that are due."""

    def __init__(self, optimizer: RatioAdamW) -> None:
        self.optimizer = optimizer

    def on_step_begin(self, loop: "TrainingLoop") -> None:
        self.optimizer.switch(loop.step // self.optimizer.options.switch_interval)

    def on_gradients_ready(self, loop: "TrainingLoop") -> None:
        self.optimizer.mask_gradients()


def scatter(size: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw `count` positions (count,) below `size`, one from each of `count` equal runs.

    A permutation would take memory and time for `size` numbers.
    """
    bounds = torch.arange(count + 1) * size // count
    width = bounds[1:] - bounds[:-1]
    return bounds[:-1] + (torch.rand(count, generator=generator) * width).long()
