"""What optimizer plugins share."""

from typing import Any

from tunewright.types import OptimizerRequest

__all__ = [
    "parameter_groups",
]


def parameter_groups(request: OptimizerRequest) -> list[dict[str, Any]]:
    """Parameters by weight decay (matrices) or none (biases, norms), and by the factor of their
    learning rate.

    The group with the plain learning rate and decay comes first: the learning rate in logs is that
    of the first group.
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
