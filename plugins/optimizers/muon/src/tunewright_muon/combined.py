"""Muon and AdamW as one optimizer."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import Parameter

if TYPE_CHECKING:
    from tunewright_muon import Muon


class MuonWithAdamW(torch.optim.Optimizer):
    """Steps some parameters by Muon and the others by AdamW.

    groups: parameter groups. matrices: the parameters for Muon. `param_groups` are the groups of
    both, Muon's first.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        matrices: Collection[Parameter],
        options: "Muon.Options",
    ) -> None:
        chosen = {id(each) for each in matrices}
        by_muon, by_adamw = _divided(groups, chosen)
        self.parts: dict[str, torch.optim.Optimizer] = {}
        if by_muon:
            self.parts["muon"] = torch.optim.Muon(
                by_muon,
                momentum=options.momentum,
                nesterov=options.nesterov,
                ns_steps=options.ns_steps,
                adjust_lr_fn=options.adjust_lr,
            )
        if by_adamw:
            betas = (options.beta1, options.beta2)
            self.parts["adamw"] = torch.optim.AdamW(by_adamw, betas=betas, eps=options.eps)
        super().__init__([*by_muon, *by_adamw], {})
        self._share_groups()

    def _share_groups(self) -> None:
        """Use the groups of both parts: a schedule sets the rates here."""
        self.param_groups = [group for part in self.parts.values() for group in part.param_groups]

    def step(self, closure: Any = None) -> None:
        """Update all parameters that have a gradient."""
        for part in self.parts.values():
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """State of each part, by its name."""
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state. Raises ValueError if it is from another optimizer or of other
        parameters."""
        if state_dict.keys() != self.parts.keys():
            raise ValueError(f"expected the states of {' and '.join(self.parts)}")
        for name, part in self.parts.items():
            part.load_state_dict(state_dict[name])
        self._share_groups()


def _divided(
    groups: list[dict[str, Any]], chosen: set[int]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Groups of the chosen parameters, and groups of the others."""
    found: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for group in groups:
        for part, wanted in zip(found, (True, False), strict=True):
            params = [each for each in group["params"] if (id(each) in chosen) is wanted]
            if params:
                part.append({**group, "params": params})
    return found
