"""Apply liger's kernels to one model, and take them out again."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from liger_kernel.transformers.monkey_patch import (
    MODEL_TYPE_TO_APPLY_LIGER_FN,
    _apply_liger_kernel_to_instance,
)

from tunewright import RecipeError
from tunewright_hf.models.modules import base_model

if TYPE_CHECKING:
    from tunewright_liger import Liger

_GONE = object()


@contextmanager
def applied(model: Any, options: "Liger.Options") -> Iterator[None]:
    """Use liger's kernels in `model`, which may be PEFT-wrapped. Raises RecipeError for a model
    that liger has no kernels for.

    Liger also replaces names in the model's module of transformers, where other models find its
    rotary positions. Afterwards all is what it was.
    """
    base = base_model(model)
    kind = base.config.model_type
    if kind not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        raise RecipeError(
            f"liger has no kernels for {kind} models",
            place="accelerators",
            hint="take liger out of the recipe",
        )
    owners = [
        *[vars(module) for module in base.modules()],
        *[vars(module) for name, module in sys.modules.items() if _models(name)],
    ]
    before = [dict(owner) for owner in owners]
    _apply_liger_kernel_to_instance(base, **arguments(options))
    after = [dict(owner) for owner in owners]
    try:
        yield
    finally:
        for owner, old, new in zip(owners, before, after, strict=True):
            _restore(owner, old, new)


def arguments(options: "Liger.Options") -> dict[str, bool]:
    """Liger's names of what is replaced. It leaves out those that a model has no part for."""
    return {
        "rope": options.rope,
        "rms_norm": options.rms_norm,
        "swiglu": options.glu,
        "geglu": options.glu,
        "layer_norm": options.layer_norm,
        "cross_entropy": False,
        "fused_linear_cross_entropy": False,
    }


def _models(name: str) -> bool:
    return name.startswith("transformers.models.") and ".modeling_" in name


def _restore(owner: dict[str, Any], old: dict[str, Any], new: dict[str, Any]) -> None:
    """Undo what changed from `old` to `new`: what training has changed since stays."""
    for key, value in new.items():
        if old.get(key, _GONE) is value:
            continue
        if key in old:
            owner[key] = old[key]
        else:
            owner.pop(key, None)
