"""The GaLore optimizer."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Parameter

from tunewright_hf.training.low_rank import LowRankOptimizer, is_wide

if TYPE_CHECKING:
    from tunewright_galore import GaLore


class GaLoreOptimizer(LowRankOptimizer):
    """Projects by the singular vectors of the current gradient."""

    def __init__(
        self,
        groups: list[dict[str, Any]],
        matrices: Collection[Parameter],
        options: "GaLore.Options",
    ) -> None:
        self.scale = options.scale
        settings = {"betas": (options.beta1, options.beta2), "eps": options.eps}

        def build(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
            if options.bits == 8:
                from bitsandbytes.optim import AdamW8bit

                return AdamW8bit(groups, **settings)  # type: ignore[no-any-return]
            return torch.optim.AdamW(groups, **settings)

        super().__init__(
            groups, matrices, build, rank=options.rank, update_proj_gap=options.update_proj_gap
        )

    def make_basis(self, number: int, matrix: Parameter) -> Tensor:
        assert matrix.grad is not None
        left, _, right = torch.linalg.svd(matrix.grad.float(), full_matrices=False)
        basis = left[:, : self.rank] if is_wide(matrix) else right[: self.rank]
        return basis.to(matrix.dtype).contiguous()

    def change(self, matrix: Parameter, gradient: Tensor, projected: Tensor, lr: float) -> Tensor:
        return self.project_back(matrix, self.proxies[matrix]).mul_(self.scale)
