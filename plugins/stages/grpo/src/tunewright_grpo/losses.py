"""Policy losses of single tokens. Tensors are (B, T); `known` is 1 at tokens of completions and 0
elsewhere. The plugin's options name the sources."""

from typing import Any

import torch
from torch import Tensor


def log_ratios(logps: Tensor, old: Tensor, known: Tensor, level: str) -> Tensor:
    """Logarithm of each token's probability ratio to the policy that generated it; of level
    `sequence` their mean over the completion, the same for all of its tokens."""
    ratios = logps - old
    if level == "token":
        return ratios
    means = (ratios * known).sum(1, keepdim=True) / known.sum(1, keepdim=True)
    return means.expand_as(ratios)


def policy_loss(
    ratios: Tensor, logps: Tensor, advantages: Tensor, options: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of each token, and whether its ratio was clipped, by name of the metric. ratios: of
    probabilities. logps: log-probabilities under the policy. options: of the stage."""
    if options.loss == "sapo":
        temperatures = torch.where(advantages > 0, *options.gate_temperatures)
        return -(temperatures * (ratios - 1)).sigmoid() * 4 / temperatures * advantages, {}
    if options.loss == "cispo":
        high = options.clip_high
        loss = -ratios.clamp(max=high).detach() * advantages * logps
        return loss, {"clip_ratio/high": (ratios > high) & (advantages > 0)}
    low, high = 1 - options.clip_low, 1 + options.clip_high
    whole = ratios if options.delta is None else ratios.clamp(max=options.delta)
    loss = -torch.minimum(whole * advantages, ratios.clamp(low, high) * advantages)
    return loss, {
        "clip_ratio/low": (ratios < low) & (advantages < 0),
        "clip_ratio/high": (ratios > high) & (advantages > 0),
    }
