"""DeepSpeed ZeRO: sharded optimizer states, gradients and parameters."""

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from tunewright import PluginOptions, Problem, hookimpl
from tunewright.plugin import Accelerator
from tunewright.types import RunContext, StageResult, TrainRequest

if TYPE_CHECKING:
    from tunewright.check import Resolved


class DeepSpeed(Accelerator):
    """Shards optimizer states and gradients, and with stage 3 parameters, across the ranks, through
    DeepSpeed's ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054). Losses equal those of one process
    with the same global batch.

    With bf16 all parameters are kept in bf16, plus a sharded fp32 copy of the trained ones.
    Checkpoints have the usual format: safetensors and JSON, for any number of ranks.
    """

    needs_processes = True
    shards = True
    fixes_parameters = True

    class Options(PluginOptions):
        stage: Literal[2, 3] = 2
        """ZeRO stage. 2: shard optimizer states and gradients; each rank holds all parameters. 3:
        shard parameters too, which takes less memory and more time. Until they are sharded, each
        rank loads all of them, in their stored dtype."""
        offload: Literal["none", "optimizer", "all"] = Field(
            "none", json_schema_extra={"tier": "advanced"}
        )
        """Keep in CPU memory, and step there: optimizer states and fp32 copies of parameters
        (ZeRO-Offload; Ren et al. 2021, arXiv:2101.06840), or with stage 3 all, parameters too."""

        @property
        def offloaded(self) -> tuple[str, ...]:
            """Parts that are kept in CPU memory, as DeepSpeed calls them."""
            return {"none": (), "optimizer": ("optimizer",), "all": ("optimizer", "param")}[
                self.offload
            ]

    @property
    def gathers(self) -> bool:
        """With stage 2, each rank holds all parameters."""
        return self.options.stage == 2

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        yield from super().objections(recipe)
        if self.options.offload == "all" and self.options.stage == 2:
            problem = "is all, and stage 2 keeps parameters on each device"
            yield Problem((*self.at, "offload"), problem, "set stage: 3, or offload: optimizer")

    def divides(self) -> dict[str, Literal["sharded", "gathered", "offloaded"]]:
        held: Literal["sharded", "offloaded"] = "offloaded" if self.options.offloaded else "sharded"
        if self.options.stage == 3:
            weights: Literal["sharded", "offloaded"] = (
                "offloaded" if self.options.offload == "all" else "sharded"
            )
            return {"copy": held, "weights": weights, "gradients": "sharded", "optimizer": held}
        # as two ranks held them: whole gradients are there until the next ones are made
        return {"copy": held, "gradients": "gathered", "optimizer": held}

    @hookimpl(wrapper=True)
    def train_stage(
        self, run: RunContext, request: TrainRequest
    ) -> Generator[None, StageResult, StageResult]:
        from tunewright_deepspeed.zero import Zero
        from tunewright_hf.distributed.sharding import check_may_shard

        check_may_shard(run, request, self.name)
        request.sharding = zero = Zero(self.options)
        try:
            return (yield)
        finally:
            zero.end()
