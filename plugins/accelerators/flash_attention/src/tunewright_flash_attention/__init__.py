"""FlashAttention where it is installed."""

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Literal

from tunewright import PluginOptions, Problem, hookimpl
from tunewright.events import Notice
from tunewright.plugin import Accelerator
from tunewright.types import LoadedModel, LoadRequest, RunContext

if TYPE_CHECKING:
    from tunewright.check import Resolved


class FlashAttention(Accelerator):
    """Takes FlashAttention 3 (Shah et al. 2024, arXiv:2407.08608) or 2 (Dao 2023,
    arXiv:2307.08691) for the recipe's models where its package and a GPU are there, and leaves sdpa
    where they are not, with a notice: one recipe for both machines. `family.attention` names an
    implementation that has to be there.

    It is exact attention: losses differ by rounding. Packed examples need no mask.
    """

    planned = False

    class Options(PluginOptions):
        version: Literal[2, 3] | None = None
        """FlashAttention's version. Default: 3, which is for Hopper GPUs, if it is installed,
        else 2."""

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        family = recipe.options("family")
        if family and getattr(family, "attention", None):  # not every family has the option
            yield Problem(
                ("family", "attention"),
                f"is {family.attention}, and accelerator flash_attention chooses it too",
                "leave out one of them",
            )
        for stage in recipe.stages:
            if stage.training.precision == "fp32":
                yield Problem(
                    stage.place("precision"),
                    "is fp32, in which flash_attention cannot compute",
                    "set bf16 or fp16, or take flash_attention out of the recipe",
                )

    @hookimpl(wrapper=True)
    def load_model(
        self, run: RunContext, request: LoadRequest
    ) -> Generator[None, LoadedModel, LoadedModel]:
        if request.weights != "none":
            from tunewright_flash_attention.choice import choose
            from tunewright_hf.models.devices import pick_device

            device = pick_device(request.device or run.plugin("family").options.device)
            request.attention, message = choose(self.options.version, device.type)
            run.emit(Notice(message=message))
        return (yield)
