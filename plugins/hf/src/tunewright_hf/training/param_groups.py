"""Parameter groups for optimizer plugins."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from tunewright import RecipeError
from tunewright.types import OptimizerRequest

__all__ = [
    "hidden_matrices",
    "learning_rate_scales",
    "parameter_groups",
]


def learning_rate_scales(
    names: Iterable[str], patterns: Mapping[str, float], own: Mapping[str, float]
) -> dict[str, float]:
    """Factor of the learning rate by parameter name; those that are not named have 1.

    names: of the trained parameters. patterns: training.learning_rate_scales. own: the adapter's
    factors and those of layers, which the patterns multiply. Raises RecipeError if a pattern
    matches no parameter.
    """
    names = list(names)
    scales, unused = dict(own), set(patterns)
    for name in names:
        for pattern, factor in patterns.items():
            if re.search(pattern, name):
                scales[name] = scales.get(name, 1.0) * factor
                unused.discard(pattern)
                break
    if unused:
        raise RecipeError(
            f"{min(unused)!r} matches no trained parameter first, such as {min(names)}",
            place="training.learning_rate_scales",
            hint="parameters are named as model.named_parameters() names them",
        )
    return scales


def parameter_groups(request: OptimizerRequest) -> list[dict[str, Any]]:
    """Parameter groups by weight decay (matrices) or none (biases, norms), and by learning-rate
    factor.

    The group with the plain learning rate and decay comes first: logs show the first group's
    learning rate.
    """
    groups: dict[tuple[float, bool], list[Any]] = {}
    for name, parameter in request.parameters:
        scale = request.learning_rate_scales.get(name, 1.0)
        groups.setdefault((scale, parameter.ndim < 2), []).append(parameter)
    return [
        {
            "params": groups[scale, is_vector],
            "lr": request.learning_rate * scale,
            "weight_decay": 0.0 if is_vector else request.weight_decay,
        }
        for scale, is_vector in sorted(groups, key=lambda group: (group[0] != 1.0, *group))
    ]


def hidden_matrices(request: OptimizerRequest) -> list[Any]:
    """The parameters that are matrices of hidden layers: neither embeddings nor the output head."""
    from torch import nn

    outer = {id(m.weight) for m in request.model.modules() if isinstance(m, nn.Embedding)}
    head = getattr(request.model, "get_output_embeddings", lambda: None)()
    if head is not None:
        outer.add(id(head.weight))
    return [each for _, each in request.parameters if each.ndim == 2 and id(each) not in outer]
