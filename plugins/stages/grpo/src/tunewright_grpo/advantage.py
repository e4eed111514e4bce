"""Group-relative advantages, and the averaging over tokens."""

import torch
from torch import Tensor

_SMALL = 1e-4  # added to the standard deviation


def advantages(rewards: Tensor, *, scale: bool) -> Tensor:
    """Advantages (groups, completions) from rewards of the same shape. scale: divide by the group's
    standard deviation."""
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred / (rewards.std(1, keepdim=True) + _SMALL) if scale else centred


def token_weights(lengths: Tensor, how: str, longest: int) -> Tensor:
    """Weight of each token for completions of these lengths (N,); a step's loss is divided by the
    sum of `parts`."""
    if how == "grpo":
        return 1 / lengths
    return torch.full_like(lengths, 1 / longest) if how == "dr_grpo" else torch.ones_like(lengths)


def parts(lengths: Tensor, how: str) -> float:
    """Contribution of completions of these lengths (N,) to the denominator of a step's mean:
    tokens, or completions."""
    return float(lengths.sum()) if how == "dapo" else float(len(lengths))
