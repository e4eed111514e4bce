"""Fully sharded data parallel training: no rank holds the whole model."""

from collections.abc import Generator
from dataclasses import replace
from typing import Literal

from tunewright import PluginOptions, hookimpl
from tunewright.events import Notice
from tunewright.plugin import Accelerator
from tunewright.types import (
    AdapterRequest,
    LoadedModel,
    LoadRequest,
    RunContext,
    StageResult,
    TrainRequest,
)


class Fsdp(Accelerator):
    """Shards weights, gradients and optimizer states over the processes of `launch`, through
    torch's fully_shard (FSDP2; Zhao et al. 2023, arXiv:2304.11277). Losses are those of one process
    with the same global batch.

    The model is built without weights and sharded; then each rank gets its shard of them.
    """

    needs_processes = True
    shards = True

    class Options(PluginOptions):
        reshard_after_forward: bool = True
        """Reshard layers after their forward pass, as ZeRO-3 does. false: gather once and keep them
        until their backward pass, as ZeRO-2 does, which takes more memory and less time."""
        cpu_offload: bool = False
        """Keep weights, gradients and optimizer states in CPU memory."""

    def divides(self) -> dict[str, Literal["sharded", "gathered", "offloaded"]]:
        how: Literal["sharded", "offloaded"] = (
            "offloaded" if self.options.cpu_offload else "sharded"
        )
        gathers = how == "sharded" and not self.options.reshard_after_forward
        return {"weights": "gathered" if gathers else how, "gradients": how, "optimizer": how}

    @hookimpl(wrapper=True)
    def load_model(
        self, run: RunContext, request: LoadRequest
    ) -> Generator[None, LoadedModel, LoadedModel]:
        """The trained model is built without weights, where its adapter needs none."""
        if run.world_size > 1 and request.trainable and request.weights == "load":
            adapter = run.plugin("adapter")
            if adapter.works_on_meta():
                request.weights = "meta"
            else:
                message = (
                    f"each rank loads the whole model before it is sharded: adapter {adapter.name} "
                    "needs its weights"
                )
                run.emit(Notice(message=message))
        return (yield)

    @hookimpl(wrapper=True)
    def apply_adapter(
        self, run: RunContext, request: AdapterRequest
    ) -> Generator[None, LoadedModel, LoadedModel]:
        before = replace(request, loaded=replace(request.loaded))
        loaded = yield
        if before.loaded.deferred is not None:
            from tunewright_hf.models.deferred import adapted_later

            adapted_later(run, before, loaded)
        return loaded

    @hookimpl(wrapper=True)
    def train_stage(
        self, run: RunContext, request: TrainRequest
    ) -> Generator[None, StageResult, StageResult]:
        from tunewright_fsdp.shard import FullyShard
        from tunewright_hf.distributed.sharding import check_may_shard

        check_may_shard(run, request, self.name)
        request.sharding = FullyShard(self.options)
        return (yield)
