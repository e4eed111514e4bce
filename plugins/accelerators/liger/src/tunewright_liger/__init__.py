"""Liger kernels: fused layers for GPUs."""

import shutil
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright import PluginOptions, Problem, RecipeError, hookimpl
from tunewright.plugin import Accelerator
from tunewright.types import RunContext, StageResult, TrainRequest

if TYPE_CHECKING:
    from tunewright.check import Resolved

_NEEDS = "liger's kernels are Triton's, and need a GPU"
_REMEDY = "take liger out of the recipe, or train on a GPU"
#: what the drivers of NVIDIA and AMD make
_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


class Liger(Accelerator):
    """Replaces parts of the trained model's layers by fused Triton kernels (Liger; Hsu et al. 2024,
    arXiv:2410.10989): less memory and time on GPUs. Losses differ by rounding.

    Liger's fused losses are left out: the loss here never holds all logits either. Which parts a
    model has kernels for depends on the installed liger-kernel.
    """

    planned = False

    class Options(PluginOptions):
        rope: bool = True
        """Fused rotary positions."""
        rms_norm: bool = True
        """Fused RMSNorm."""
        glu: bool = True
        """Fused gated MLP: liger's swiglu or geglu, whichever the model has."""
        layer_norm: bool = True
        """Fused LayerNorm, in models that have it."""

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        device = getattr(recipe.options("family"), "device", "auto")  # a family may have no options
        has_driver = shutil.which("nvidia-smi") or any(Path(path).exists() for path in _DRIVERS)
        # a recipe that names a GPU may be checked on a machine without one
        if device == "cpu" or (device == "auto" and not has_driver):
            yield Problem(self.at, _NEEDS, _REMEDY)

    @hookimpl(wrapper=True)
    def train_stage(
        self, run: RunContext, request: TrainRequest
    ) -> Generator[None, StageResult, StageResult]:
        from tunewright_liger.kernels import applied

        loaded = request.loaded
        device = loaded.deferred.device if loaded.deferred else loaded.model.device
        if device.type == "cpu":
            raise RecipeError(_NEEDS, place="accelerators", hint=_REMEDY)
        with applied(loaded.model, self.options):
            return (yield)
