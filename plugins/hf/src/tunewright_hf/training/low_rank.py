"""Optimizers that keep the states of matrices in a low-rank subspace.

Each matrix has a low-rank proxy. An inner optimizer steps it from zero with the projected gradient;
its value is then the update in the subspace. So any optimizer can be the inner one, also with 8-bit
states.
"""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

__all__ = ["LowRankOptimizer", "is_wide"]


class LowRankOptimizer(torch.optim.Optimizer):
    """Base of GaLore and APOLLO: projects gradients, steps the inner optimizer, maps updates back.

    groups: parameter groups with weight decay, as torch.optim.Optimizer takes them. matrices:
    parameters in them with low-rank states. build: creates the inner optimizer from groups.
    update_proj_gap: steps between two projections.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        matrices: Collection[Parameter],
        build: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
        *,
        rank: int,
        update_proj_gap: int,
    ) -> None:
        super().__init__(groups, {})
        self.rank, self.update_proj_gap, self.count = rank, update_proj_gap, 0
        chosen = {id(each) for each in matrices}
        self.bases: dict[Parameter, Tensor] = {}
        self.proxies: dict[Parameter, Parameter] = {}
        inner = []
        for group in self.param_groups:
            stood_in = []
            for each in group["params"]:
                if id(each) in chosen and min(each.shape) > rank:
                    shape = (rank, each.shape[1]) if is_wide(each) else (each.shape[0], rank)
                    self.proxies[each] = Parameter(each.new_zeros(shape))
                stood_in.append(self.proxies.get(each, each))
            plain = [each for each in stood_in if each in set(group["params"])]
            proxies = [each for each in stood_in if each not in set(group["params"])]
            inner.append({**group, "params": plain})
            # decay acts on the matrix, in step, not on its proxy
            inner.append({**group, "params": proxies, "weight_decay": 0.0})
        self.inner = build([group for group in inner if group["params"]])
        self._kept = [number // 2 for number, group in enumerate(inner) if group["params"]]

    def make_basis(self, number: int, matrix: Parameter) -> Tensor:
        """Projection matrix. A wide matrix (m, n) with m < n is projected from the left by (m,
        rank), a tall one from the right by (rank, n). number: index of the matrix."""
        raise NotImplementedError

    def change(self, matrix: Parameter, gradient: Tensor, projected: Tensor, lr: float) -> Tensor:
        """Change of the matrix. projected: gradient in the subspace; `self.proxies[matrix]` holds
        the inner optimizer's update of it."""
        raise NotImplementedError

    def project(self, matrix: Parameter, gradient: Tensor) -> Tensor:
        """Gradient (m, n) in the subspace: (rank, n) of a wide matrix, (m, rank) of a tall one."""
        basis = self.bases[matrix]
        return basis.T @ gradient if is_wide(matrix) else gradient @ basis.T

    def project_back(self, matrix: Parameter, projected: Tensor) -> Tensor:
        basis = self.bases[matrix]
        return basis @ projected if is_wide(matrix) else projected @ basis

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update all parameters that have a gradient."""
        projected: dict[Parameter, Tensor] = {}
        for number, (matrix, proxy) in enumerate(self.proxies.items()):
            proxy.grad = None
            if matrix.grad is not None:
                if matrix not in self.bases or self.count % self.update_proj_gap == 0:
                    self.bases[matrix] = self.make_basis(number, matrix)
                projected[matrix] = self.project(matrix, matrix.grad)
                proxy.zero_()
                proxy.grad = projected[matrix].clone()
        for number, group in zip(self._kept, self.inner.param_groups, strict=True):
            group["lr"] = self.param_groups[number]["lr"]
        self.inner.step()
        for group in self.param_groups:
            for each in group["params"]:
                if each in projected:
                    each.mul_(1 - group["lr"] * group["weight_decay"])
                    each.add_(self.change(each, each.grad, projected[each], group["lr"]))
        self.count += 1

    def state_dict(self) -> dict[str, Any]:
        """The groups, the inner optimizer's state, and the bases by the number of their matrix."""
        bases = {n: self.bases[m] for n, m in enumerate(self.proxies) if m in self.bases}
        groups = super().state_dict()["param_groups"]
        inner = self.inner.state_dict()
        return {"param_groups": groups, "inner": inner, "bases": bases, "count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state. Raises ValueError if it is from another optimizer or of other
        parameters."""
        if "bases" not in state_dict or "inner" not in state_dict:
            raise ValueError("expected the states of an optimizer of low rank")
        super().load_state_dict({"state": {}, "param_groups": state_dict["param_groups"]})
        self.inner.load_state_dict(state_dict["inner"])
        self.count = state_dict["count"]
        matrices = list(self.proxies)
        self.bases = {
            matrices[number]: basis.to(matrices[number].device)
            for number, basis in state_dict["bases"].items()
        }


def is_wide(matrix: Tensor) -> bool:
    """Whether a matrix is projected from the left: its rows are fewer than its columns."""
    return matrix.shape[0] < matrix.shape[1]
