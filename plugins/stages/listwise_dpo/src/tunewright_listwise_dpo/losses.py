"""Losses of answers in order, by their rewards (K,), the best first."""

import torch
from torch import Tensor


def softmax(rewards: Tensor) -> Tensor:
    """Negative log-probability, a scalar in nats, that the first is chosen among all (S-DPO, Chen
    et al. 2024, arXiv:2406.09215). With K = 2 the loss of DPO."""
    return torch.logsumexp(rewards, 0) - rewards[0]


def plackett_luce(rewards: Tensor) -> Tensor:
    """Negative log-probability, a scalar in nats, of the whole order."""
    return torch.stack([softmax(rewards[place:]) for place in range(len(rewards) - 1)]).sum()


LOSSES = {"softmax": softmax, "plackett_luce": plackett_luce}


def reward_metrics(rewards: Tensor) -> list[Tensor]:
    """Rewards of the best, mean of the others, their difference, and whether the best has the
    highest: in the order of PAIR_REWARDS."""
    best, others = rewards[0], rewards[1:]
    return [best, others.mean(), best - others.mean(), (best > others.max()).float()]
