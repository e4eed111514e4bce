"""Experts of a mixture as LoRA targets."""

from typing import Any

from tunewright import RecipeError
from tunewright_hf.models.modules import within


def fused_experts(model: Any) -> list[str]:
    """Endings of the names of fused experts: parameters (experts, rows, columns). Raises
    RecipeError if there are none."""
    fused = [
        name for name, p in model.named_parameters() if p.ndim == 3 and within(name, ["experts"])
    ]
    found = {".".join(name.split(".")[-3:]) for name in fused}
    if not found:
        raise RecipeError("the model has no experts", place="adapter.experts")
    return sorted(found)
