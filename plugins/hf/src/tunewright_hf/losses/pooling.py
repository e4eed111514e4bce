"""Vectors of whole texts, from the states of the last layer."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tunewright.types import Embedding

__all__ = ["pooled"]


def pooled(states: Tensor, attention_mask: Tensor, embedding: Embedding) -> Tensor:
    """Vectors (B, D), fp32, from states (B, T, D) of right-padded rows. attention_mask: (B, T)."""
    mask = attention_mask.to(states.device)
    if embedding.pooling == "mean":
        known = mask[:, :, None].float()
        found = (states.float() * known).sum(1) / known.sum(1)
    elif embedding.pooling == "lasttoken":
        found = states[torch.arange(len(states), device=states.device), mask.sum(1) - 1].float()
    else:
        found = states[:, 0].float()
    return normalize(found, dim=1) if embedding.normalize else found
