"""DeepSpeed ZeRO: sharded optimizer states, gradients and parameters."""

from collections.abc import Generator
from typing import Literal

from tunewright import PluginOptions, hookimpl
from tunewright.plugin import Accelerator
from tunewright.types import RunContext, StageResult, TrainRequest


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

    def divides(self) -> dict[str, Literal["sharded", "gathered", "offloaded"]]:
        if self.options.stage == 3:
            return dict.fromkeys(("copy", "weights", "gradients", "optimizer"), "sharded")
        # measured on two ranks: whole gradients are there until the next ones are made
        return {"copy": "sharded", "gradients": "gathered", "optimizer": "sharded"}

    @hookimpl(wrapper=True)
    def train_stage(
        self, run: RunContext, request: TrainRequest
    ) -> Generator[None, StageResult, StageResult]:
        from tunewright_deepspeed.zero import Zero
        from tunewright_hf.distributed.sharding import check_may_shard

        check_may_shard(run, request, self.name)
        request.sharding = zero = Zero(self.options.stage)
        try:
            return (yield)
        finally:
            zero.end()
