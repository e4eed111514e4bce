"""The APOLLO optimizer."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Parameter

from tunewright_hf.training.low_rank import LowRankOptimizer, is_wide

if TYPE_CHECKING:
    from tunewright_apollo import Apollo


class ApolloOptimizer(LowRankOptimizer):
    """Projects by a random matrix, and scales the full gradient like AdamW changes the projected
    one.

    seed: of the projections, which are the same on all ranks and in a resumed run.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        matrices: Collection[Parameter],
        options: "Apollo.Options",
        seed: int,
    ) -> None:
        self.options, self.seed = options, seed
        self.norms: dict[Parameter, Tensor] = {}  # of the last update of each matrix

        def build(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
            betas = (options.beta1, options.beta2)
            return torch.optim.AdamW(groups, betas=betas, eps=options.eps)

        super().__init__(
            groups, matrices, build, rank=options.rank, update_proj_gap=options.update_proj_gap
        )

    def make_basis(self, number: int, matrix: Parameter) -> Tensor:
        turn = self.count // self.update_proj_gap
        mixed = (self.seed * 1_000_003 + turn) * 1_000_003 + number
        generator = torch.Generator().manual_seed(mixed % 2**63)
        shape = (matrix.shape[0], self.rank) if is_wide(matrix) else (self.rank, matrix.shape[1])
        return torch.randn(shape, generator=generator).div_(self.rank**0.5).to(matrix)

    def change(self, matrix: Parameter, gradient: Tensor, projected: Tensor, lr: float) -> Tensor:
        options = self.options
        # without Adam's bias correction: the growth of the factor is limited
        steps = self.count + 1
        correction = (1 - options.beta2**steps) ** 0.5 / (1 - options.beta1**steps)
        # the inner optimizer moved the proxy from zero by -lr times the adapted gradient
        adapted = self.proxies[matrix] / -(lr * correction) if lr else torch.zeros_like(projected)
        if options.scale_type == "channel":
            dim = 0 if is_wide(matrix) else 1
            factor = adapted.norm(dim=dim, keepdim=True) / (
                projected.norm(dim=dim, keepdim=True) + 1e-8
            )
        else:
            factor = adapted.norm() / (projected.norm() + 1e-8)
        update = gradient * factor
        norm = update.norm()
        if matrix in self.norms:
            limit = options.norm_growth_limit
            growth = norm / (self.norms[matrix] + 1e-8)
            update = update / (growth.clamp_min(limit) / limit)
            norm = update.norm()
        self.norms[matrix] = norm
        return update.mul_(-lr * correction * options.scale**0.5)

    def state_dict(self) -> dict[str, Any]:
        """State of the base class, with the norms of the last updates."""
        norms = {n: self.norms[m] for n, m in enumerate(self.proxies) if m in self.norms}
        return {**super().state_dict(), "norms": norms}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state. Raises ValueError if it is from another optimizer or of other
        parameters."""
        super().load_state_dict(state_dict)
        matrices = list(self.proxies)
        self.norms = {
            matrices[number]: norm.to(matrices[number].device)
            for number, norm in state_dict["norms"].items()
        }
