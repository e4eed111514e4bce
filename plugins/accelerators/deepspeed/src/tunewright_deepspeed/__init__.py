"""DeepSpeed ZeRO: no process holds all that training needs."""

from collections.abc import Generator
from typing import TYPE_CHECKING, Literal

from tunewright import Plugin, PluginOptions, hookimpl
from tunewright.types import StageResult, TrainRequest

if TYPE_CHECKING:
    from tunewright.run import Run


class DeepSpeed(Plugin):
    """Optimizer states and gradients, and with stage 3 weights, spread over the processes of
    `launch`, through DeepSpeed's ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054). Losses are those
    of one process with the same global batch.

    With bf16 all weights are kept in bf16, and the trained ones in fp32 too, spread. Checkpoints
    are those of every other run: safetensors and JSON, for any number of processes.
    """

    class Options(PluginOptions):
        stage: Literal[2, 3] = 2
        """2 spreads optimizer states and gradients, and each process holds all weights. 3 spreads
        weights too, which takes less memory and more time. They are spread when they have been
        loaded: until then each process holds all of them, in the format that they are stored in"""

    @hookimpl(wrapper=True)
    def train_stage(
        self, run: "Run", request: TrainRequest
    ) -> Generator[None, StageResult, StageResult]:
        from tunewright_deepspeed.zero import Zero
        from tunewright_hf.distributed.sharding import check_may_shard

        check_may_shard(run, request, self.name)
        request.sharding = zero = Zero(self.options.stage)
        try:
            return (yield)
        finally:
            zero.end()
