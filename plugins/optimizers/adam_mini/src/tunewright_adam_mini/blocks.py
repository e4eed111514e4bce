"""AdamW with a second moment per block."""

import re
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from tunewright.types import OptimizerRequest

_QUERY_OR_KEY = re.compile(r"(^|[._])(q_proj|k_proj|wq|wk|query|key)\.weight$")


def rows_per_block(request: OptimizerRequest) -> dict[Parameter, int]:
    """Rows per block, for parameters with more than one: those of an attention head."""
    config: Any = getattr(request.model, "config", None)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    heads = getattr(config, "num_attention_heads", None)
    if not heads:
        return {}
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return {
        each: head_dim
        for name, each in request.parameters
        if _QUERY_OR_KEY.search(name) and each.ndim == 2 and each.shape[0] % head_dim == 0
    }


class BlockAdamW(torch.optim.Optimizer):
    """AdamW with a second moment per block. rows: rows per block by parameter; default: 1. A vector
    is one block."""

    def __init__(
        self,
        groups: list[dict[str, Any]],
        rows: dict[Parameter, int],
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        super().__init__(groups, {"betas": betas, "eps": eps})
        self.rows = rows

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            for each in group["params"]:
                if each.grad is not None:
                    self._update(each, each.grad, group)

    def _update(self, parameter: Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        rows = self.rows.get(parameter, 1) if parameter.ndim > 1 else parameter.shape[0]
        blocks = (parameter.shape[0] // rows, -1)
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = parameter.new_zeros(blocks[0], 1)  # of a block
        state["step"] += 1
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        mean.lerp_(gradient, 1 - beta1)
        square.lerp_(gradient.reshape(blocks).square().mean(dim=1, keepdim=True), 1 - beta2)
        correction1, correction2 = (1 - beta ** state["step"] for beta in (beta1, beta2))
        scale = -group["lr"] / correction1 / (square / correction2).sqrt().add_(group["eps"])
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_((mean.reshape(blocks) * scale).reshape(parameter.shape))
