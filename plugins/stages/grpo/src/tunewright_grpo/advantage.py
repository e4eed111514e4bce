"""Advantages of completions, and the averaging over tokens."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

_SMALL = 1e-4  # added to the standard deviation


def centred(rewards: Tensor, estimator: str) -> Tensor:
    """Rewards (groups, completions) minus their baseline: the mean of the group, that of its other
    completions (rloo), or none (reinforce_plus_plus)."""
    if estimator == "reinforce_plus_plus":
        return rewards
    above = rewards - rewards.mean(1, keepdim=True)
    size = rewards.shape[1]
    return above * (size / (size - 1)) if estimator == "rloo" else above


def deviation(rewards: Tensor, total: Callable[[Tensor], Tensor]) -> float:
    """Standard deviation of all rewards of a step. total: sums over ranks."""
    sums = torch.stack([torch.ones_like(rewards), rewards, rewards**2]).double().flatten(1).sum(1)
    count, all_of_them, squares = total(sums).tolist()
    return math.sqrt(max(0.0, squares - all_of_them**2 / count) / max(1.0, count - 1))


def scaled(advantages: Tensor, rewards: Tensor, scale: str, of_step: float) -> Tensor:
    """Advantages divided by the standard deviation of the rewards of their group or of the whole
    step (`of_step`). All (groups, completions)."""
    if scale == "none":
        return advantages
    by = rewards.std(1, keepdim=True) if scale == "group" else of_step
    return advantages / (by + _SMALL)


def overlong_penalty(lengths: Tensor, longest: int, buffer: int) -> Tensor:
    """0 for completions of at most `longest` - `buffer` tokens, falling linearly to -1 at `longest`
    (DAPO, arXiv:2503.14476, equation 13)."""
    return ((longest - buffer - lengths) / buffer).clamp(-1.0, 0.0)


def token_weights(lengths: Tensor, how: str, longest: int) -> Tensor:
    """Weight of each token for completions of these lengths (N,); a step's loss is divided by the
    sum of `parts`."""
    if how in ("grpo", "sapo"):
        return 1 / lengths
    return torch.full_like(lengths, 1 / longest) if how == "dr_grpo" else torch.ones_like(lengths)


def parts(lengths: Tensor, how: str) -> float:
    """Contribution of completions of these lengths (N,) to the denominator of a step's mean:
    tokens, or completions."""
    return float(lengths.sum()) if how in ("dapo", "cispo") else float(len(lengths))
