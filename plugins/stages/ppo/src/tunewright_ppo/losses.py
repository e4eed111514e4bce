"""PPO advantages and losses. Tensors are (B, T); `known` is 1 at tokens of completions and 0
elsewhere."""

import torch
from torch import Tensor


def gae(rewards: Tensor, values: Tensor, known: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """Advantages by generalized advantage estimation (arXiv:1506.02438). The value after the last
    token is 0."""
    found = torch.zeros_like(rewards)
    next_value = next_advantage = torch.zeros_like(rewards[:, 0])
    for place in reversed(range(rewards.shape[1])):
        surprise = rewards[:, place] + gamma * next_value - values[:, place]
        next_advantage = (surprise + gamma * gae_lambda * next_advantage) * known[:, place]
        next_value = values[:, place] * known[:, place]
        found[:, place] = next_advantage
    return found


def policy_loss(ratios: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    """Clipped policy loss. ratios: probabilities of tokens divided by those at sampling."""
    clipped = ratios.clamp(1 - clip_range, 1 + clip_range)
    return -torch.minimum(ratios * advantages, clipped * advantages)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip_range: float) -> Tensor:
    clipped = old_values + (values - old_values).clamp(-clip_range, clip_range)
    return 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)


def steered(beta: float, kl: float, target: float, share: float) -> float:
    """Adapted KL coefficient. kl, target: nats per completion. share: elapsed share of the
    horizon."""
    error = max(-0.2, min(0.2, kl / target - 1))
    return beta * (1 + error * share)
