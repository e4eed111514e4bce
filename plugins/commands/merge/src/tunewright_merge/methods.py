"""Merge methods. Each merges one tensor of all models, in float32.

linear: weighted mean (Wortsman et al. 2022, arXiv:2203.05482). slerp: spherical interpolation
(Shoemake 1985). task_arithmetic: Ilharco et al. 2022, arXiv:2212.04089. ties: Yadav et al. 2023,
arXiv:2306.01708, trimmed per tensor. dare_linear, dare_ties: Yu et al. 2023, arXiv:2311.03099.
Results are those of mergekit (LGPL; tests compare them), but for the values that DARE drops, which
depend on the seed.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_PARALLEL = 0.9995  # cosine from which slerp interpolates linearly
_ZERO = 1e-8


@dataclass(frozen=True, slots=True)
class Settings:
    """Arguments of the methods besides the tensors. weights: one for each model."""

    method: str
    weights: list[float]
    density: float = 1.0
    scale: float = 1.0
    seed: int = 42


def merged(tensors: list[Tensor], base: Tensor | None, settings: Settings, index: int) -> Tensor:
    """Merge the models' tensors of one name; all have the same shape and are float32.

    base: the base model's, where the method has one. index: of the tensor among all, for the random
    numbers of DARE.
    """
    weights = settings.weights
    if settings.method == "linear":
        total = sum(weights)
        return sum_of(
            [each * (weight / total) for each, weight in zip(tensors, weights, strict=True)]
        )
    if settings.method == "slerp":
        return slerp(tensors[0], tensors[1], weights[1] / (weights[0] + weights[1]))
    assert base is not None, "arguments.parse has checked it"
    changes = [each - base for each in tensors]
    if settings.method == "ties":
        changes = [trimmed(each, settings.density) for each in changes]
    elif settings.method.startswith("dare_"):
        seeds = [f"{settings.seed} {index} {model}" for model in range(len(changes))]
        changes = [dropped(*each, settings.density) for each in zip(changes, seeds, strict=True)]
    weighted = [each * weight for each, weight in zip(changes, weights, strict=True)]
    if settings.method in ("task_arithmetic", "dare_linear"):
        change = sum_of(weighted)
    else:
        change = elected(weighted, weights, mean=settings.method == "ties")
    return base + settings.scale * change


def sum_of(tensors: list[Tensor]) -> Tensor:
    total = torch.zeros_like(tensors[0])
    for each in tensors:
        total += each
    return total


def slerp(first: Tensor, second: Tensor, t: float) -> Tensor:
    """Interpolate on the great circle between two tensors, taken as vectors; t = 0 is the first.
    Linear where they are nearly parallel, or one of them is 0."""
    norms = first.norm(), second.norm()
    if min(norms) <= _ZERO:
        return (1 - t) * first + t * second
    cosine = float((first.flatten() / norms[0]) @ (second.flatten() / norms[1]))
    if abs(cosine) > _PARALLEL:
        return (1 - t) * first + t * second
    angle = torch.arccos(torch.tensor(cosine, dtype=torch.float64))
    shares = torch.sin((1 - t) * angle) / angle.sin(), torch.sin(t * angle) / angle.sin()
    return float(shares[0]) * first + float(shares[1]) * second


def trimmed(change: Tensor, density: float) -> Tensor:
    """The change with all but its largest values, by magnitude, set to 0."""
    count = int(density * change.numel())
    if count >= change.numel():
        return change
    flat, kept = change.flatten(), torch.zeros(change.numel(), dtype=change.dtype)
    if count:
        places = flat.abs().topk(count, sorted=False).indices
        kept[places] = flat[places]
    return kept.view_as(change)


def dropped(change: Tensor, seed: str, density: float) -> Tensor:
    """The change with values dropped at random, and the others divided by `density`."""
    draw = torch.Generator().manual_seed(_number(seed))
    kept = torch.rand(change.shape, generator=draw) < density
    return change * kept / density


def elected(weighted: list[Tensor], weights: list[float], *, mean: bool) -> Tensor:
    """Sum of the weighted changes whose sign is that of all of them together; divided by the sum of
    their weights with `mean` (the disjoint mean of TIES)."""
    sign = sum_of(weighted).sign()
    sign[sign == 0] = 1.0
    total, count = torch.zeros_like(sign), torch.zeros_like(sign)
    for each, weight in zip(weighted, weights, strict=True):
        agrees = each.sign() == sign
        total += each * agrees
        count += weight * agrees
    if not mean:
        return total
    return total / torch.where(count.abs() < _ZERO, torch.ones_like(count), count)


def _number(text: str) -> int:
    import hashlib

    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)
