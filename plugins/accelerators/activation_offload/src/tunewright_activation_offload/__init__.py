"""Activations out of the GPU's memory, or out of memory, until the backward pass."""

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from tunewright import PluginOptions, Problem, RecipeError, hookimpl
from tunewright.plugin import Accelerator
from tunewright.types import RunContext, StageResult, TrainRequest

if TYPE_CHECKING:
    from tunewright.check import Resolved

_ON_CPU = "the model trains on the CPU, whose memory holds the activations already"
_DISK = "set offload_to: disk, or take activation_offload out of the recipe"


class ActivationOffload(Accelerator):
    """Moves what the forward pass keeps for the backward pass to CPU memory or to files, and back
    when it is needed, through torch's hooks on saved tensors. Gradients are equal to the bit; a
    step takes longer by the time of two copies.

    With training.activation_checkpointing or the accelerator activation_checkpointing it moves what
    these keep: the inputs of layers. Weights stay where they are.
    """

    artifacts = ("activations",)
    planned = False

    class Options(PluginOptions):
        offload_to: Literal["cpu", "disk"] = "cpu"
        """Storage of the activations. cpu: CPU memory. disk: safetensors files in the run folder,
        each removed after its use."""
        min_offload_size: int = Field(1024, ge=0, le=2**40)
        """Bytes. Smaller tensors stay (TRL's option of this name)."""
        use_pin_memory: bool = True
        """With cpu: page-locked memory, from which a GPU copies faster."""

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        family = recipe.options("family")
        if self.options.offload_to == "cpu" and family and family.device == "cpu":
            yield Problem(self.at, _ON_CPU, _DISK)

    @hookimpl(wrapper=True)
    def train_stage(
        self, run: RunContext, request: TrainRequest
    ) -> Generator[None, StageResult, StageResult]:
        from tunewright_activation_offload.offload import Offload
        from tunewright_activation_offload.stores import CpuStore, DiskStore

        loaded, options = request.loaded, self.options
        device = loaded.deferred.device if loaded.deferred else loaded.model.device
        if options.offload_to == "cpu" and device.type == "cpu":
            raise RecipeError(_ON_CPU, place="accelerators", hint=_DISK)
        store = (
            CpuStore(options.use_pin_memory and device.type == "cuda")
            if options.offload_to == "cpu"
            else DiskStore(run.folder / "activations" / f"rank-{run.rank}")
        )
        try:
            with Offload(store, options.min_offload_size).active(loaded.model):
                return (yield)
        finally:
            store.close()
