"""BAdam: AdamW on one block of parameters at a time."""

import math
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from tunewright import PluginOptions, Problem, RecipeError, hookimpl
from tunewright.plugin import Optimizer
from tunewright.types import OptimizerRequest
from tunewright_hf.models.peft import PromptAdapter
from tunewright_hf.training.block_switching import (
    BlockSwitching,
    layer_blocks,
    shuffled,
)

if TYPE_CHECKING:
    from tunewright.check import Resolved


class BAdam(Optimizer):
    """AdamW on one block of the model at a time (Luo et al. 2024, arXiv:2404.02827): all layers
    are trained in turn, with gradients and states of one layer in memory. The states of a layer
    are dropped when it is left. Mode ratio trains a random share of each weight's entries instead:
    states of these entries only, gradients of all.
    """

    switches_parameters = True

    class Options(PluginOptions):
        mode: Literal["layer", "ratio"] = "layer"
        """layer: one transformer layer at a time. ratio: a share of the entries of each weight."""
        switch_interval: int = Field(50, ge=1)
        """Optimizer steps on a block before the next."""
        switch_mode: Literal["random", "ascending", "descending"] = "random"
        """Order of the blocks in mode layer. random: a new permutation each time all were
        trained."""
        train_embeddings: bool = False
        """In mode layer, also train embeddings, final norm and head, as blocks of their own.
        Default: they stay frozen."""
        update_ratio: float = Field(0.05, gt=0, le=1)
        """Share of the entries that is trained in mode ratio."""
        mask_mode: Literal["adjacent", "scatter"] = "adjacent"
        """Entries in mode ratio. adjacent: one run of entries of each weight. scatter: entries
        all over it, with 8 bytes each for their positions."""
        beta1: float = Field(0.9, ge=0, lt=1)
        """Decay rate of the running mean of gradients."""
        beta2: float = Field(0.999, ge=0, lt=1)
        """Decay rate of the running mean of squared gradients."""
        eps: float = Field(1e-8, gt=0, le=1)
        """Term added to the denominator for numerical stability."""

    def __init__(self, options: Any, name: str = "") -> None:
        super().__init__(options, name)
        by_layer = not (options and options.mode == "ratio")
        self.switches_parameters = by_layer  # type: ignore[misc]
        # in mode ratio entries are chosen from whole weights
        self.elementwise = by_layer  # type: ignore[misc]

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        yield from super().objections(recipe)
        adapter = recipe.plugin("adapter")
        if self.options.mode == "layer" and adapter and issubclass(adapter, PromptAdapter):
            yield Problem(
                self.at,
                f"{self.name} trains one layer at a time, and adapter "
                f"{recipe.recipe.adapter.name} trains none",
                "set another optimizer such as adamw",
            )

    def state_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        """First and second moments: of a weight while its layer is trained, or of the entries that
        are trained."""
        width, count = self.dtype_bytes(dtype), math.prod(shape)
        if self.options.mode == "layer":
            return 2 * width * count
        positions = 8 if self.options.mask_mode == "scatter" else 0
        return (2 * width + positions) * math.ceil(self.options.update_ratio * count)

    @hookimpl
    def build_optimizer(self, run: Any, request: OptimizerRequest) -> Any:
        from tunewright_hf.training.param_groups import parameter_groups

        options, groups = self.options, parameter_groups(request)
        if options.mode == "ratio":
            from tunewright_badam.ratio import RatioAdamW

            return RatioAdamW(groups, options, run.recipe.training.seed)
        from torch.optim import AdamW

        optimizer: Any = AdamW(groups, betas=(options.beta1, options.beta2), eps=options.eps)
        blocks = self._blocks([name for name, _ in request.parameters])

        def choose(period: int, seed: int) -> Collection[str]:
            cycle, place = divmod(period, len(blocks))
            if options.switch_mode == "random":
                place = shuffled(len(blocks), seed, cycle)[place]
            return blocks[place]

        optimizer.training_callbacks = [BlockSwitching(options.switch_interval, choose)]
        return optimizer

    def _blocks(self, names: list[str]) -> list[list[str]]:
        layers, others = layer_blocks(names)
        blocks = layers + (others if self.options.train_embeddings else [])
        if not blocks:
            raise RecipeError(
                "badam found no trained layer",
                place="optimizer",
                hint="set train_embeddings: true, or another optimizer",
            )
        return blocks[::-1] if self.options.switch_mode == "descending" else blocks
