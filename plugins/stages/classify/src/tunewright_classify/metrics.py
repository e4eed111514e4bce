"""Metrics of classes and numbers, from sums over rows, so that ranks can add theirs. B rows, N
classes."""

import torch
from torch import Tensor


def class_sums(logits: Tensor, targets: Tensor, several: bool) -> Tensor:
    """Sums (2 + 3 N,): rows, rows that are right in all classes, and of each class the true
    positives, false positives and false negatives. logits, targets: (B, N), targets of 0 and 1.
    several: a row has any number of classes, those with a positive logit; else one."""
    if several:
        found = logits > 0
    else:
        found = torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1]).bool()
    known = targets > 0.5
    right = (found == known).all(1).sum()
    counts = [(found & known).sum(0), (found & ~known).sum(0), (~found & known).sum(0)]
    rows = torch.tensor([len(logits)], device=logits.device)
    return torch.cat([rows, right[None], *counts]).double()


def class_metrics(sums: Tensor) -> dict[str, float]:
    """accuracy: share of rows that are right in all classes. f1: mean over the classes that are in
    the data or were found (macro F1)."""
    rows, right, *rest = sums.tolist()
    count = len(rest) // 3
    hits, extra, missed = (rest[n * count : (n + 1) * count] for n in range(3))
    scores = [
        2 * hit / (2 * hit + more + less)
        for hit, more, less in zip(hits, extra, missed, strict=True)
        if hit + more + less
    ]
    return {"accuracy": right / rows, "f1": sum(scores) / len(scores)}


def number_sums(found: Tensor, known: Tensor) -> Tensor:
    """Sums (7,) of numbers (B,): rows, squared errors, and those of the correlation."""
    one, other = found.double(), known.double()
    rows = torch.full((), len(one), dtype=torch.float64, device=one.device)
    parts = [(one - other) ** 2, one, other, one**2, other**2, one * other]
    return torch.stack([rows, *(each.sum() for each in parts)])


def number_metrics(sums: Tensor) -> dict[str, float]:
    """mse: mean squared error. pearson: correlation; 0 where one side is constant."""
    rows, squares, one, other, one_2, other_2, product = sums.tolist()
    variances = (rows * one_2 - one**2) * (rows * other_2 - other**2)
    covariance = rows * product - one * other
    pearson = covariance / variances**0.5 if variances > 1e-12 else 0.0
    return {"mse": squares / rows, "pearson": pearson}
