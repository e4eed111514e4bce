"""What an answer is worth beside the others of its group, and how its tokens are averaged."""

import torch
from torch import Tensor

_SMALL = 1e-4  # in place of no spread at all


def advantages(rewards: Tensor, *, scale: bool) -> Tensor:
    """rewards, and what is given: (groups, answers). scale: divide by the group's standard
    deviation."""
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred / (rewards.std(1, keepdim=True) + _SMALL) if scale else centred


def token_weights(lengths: Tensor, how: str, longest: int) -> Tensor:
    """Weight of each token of answers of these lengths (N); a step's loss is divided by the sum of
    `parts`."""
    if how == "grpo":
        return 1 / lengths
    return torch.full_like(lengths, 1 / longest) if how == "dr_grpo" else torch.ones_like(lengths)


def parts(lengths: Tensor, how: str) -> float:
    """What answers of these lengths (N) count in the mean of a step: their tokens, or
    themselves."""
    return float(lengths.sum()) if how == "dapo" else float(len(lengths))
