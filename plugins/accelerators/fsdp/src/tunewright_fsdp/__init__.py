"""Fully sharded data parallel training: no process holds the whole model."""

from collections.abc import Generator
from typing import TYPE_CHECKING

from tunewright import Plugin, PluginOptions, hookimpl
from tunewright.types import StageResult, TrainRequest

if TYPE_CHECKING:
    from tunewright.run import Run


class Fsdp(Plugin):
    """Weights, gradients and optimizer states spread over the processes of `launch`, through
    torch's fully_shard (FSDP2; Zhao et al. 2023, arXiv:2304.11277). Losses are those of one process
    with the same global batch.
    """

    class Options(PluginOptions):
        reshard_after_forward: bool = True
        """Reshard layers after their forward pass, as ZeRO-3 does. false: gather once and keep them
        until their backward pass, as ZeRO-2 does, which takes more memory and less time."""
        cpu_offload: bool = False
        """Keep weights, gradients and optimizer states in CPU memory."""

    @hookimpl(wrapper=True)
    def train_stage(
        self, run: "Run", request: TrainRequest
    ) -> Generator[None, StageResult, StageResult]:
        from tunewright_fsdp.shard import FullyShard
        from tunewright_hf.distributed.sharding import check_may_shard

        check_may_shard(run, request, self.name)
        request.sharding = FullyShard(self.options)
        return (yield)
