"""Correction of completions that an engine has sampled, with other numerics than the training's.

Each token's loss is multiplied by the ratio of its probability under the trained model to that
under the engine, truncated at a cap (truncated importance sampling, Yao et al. 2025, "Your
Efficient RL Framework Secretly Brings You Off-Policy RL Training"; TRL's
`vllm_importance_sampling_correction`).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tunewright_hf.training.rollouts import Rollout


def sampled_logps(written: Sequence[Rollout], length: int) -> Tensor | None:
    """Log-probabilities (B, length) under the engine, each at the position before its token; NaN:
    unknown. None: the model itself has sampled."""
    if not any(answer.logps for answer in written):
        return None
    found = torch.full((len(written), length + 1), torch.nan)
    for row, answer in zip(found, written, strict=True):
        start = len(answer.prompt_ids)
        row[start : start + len(answer.logps)] = torch.tensor(answer.logps)
    return found[:, 1:]


def truncated_ratios(logps: Tensor, sampled: Tensor, cap: float) -> Tensor:
    """Ratios (B, T), at most `cap`; 1 where one is unknown."""
    return (logps - sampled).nan_to_num(0.0).exp().clamp(max=cap)
