"""Expert parallelism: each rank holds some of the experts of a mixture."""

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING

from pydantic import Field

from tunewright import PluginOptions, Problem, hookimpl
from tunewright.plugin import Accelerator, Adapter
from tunewright.types import LoadedModel, LoadRequest, RunContext, StageResult, TrainRequest

if TYPE_CHECKING:
    from tunewright.check import Resolved


class ExpertParallel(Accelerator):
    """Spreads the experts of each layer over the ranks, and sends them their tokens (Lepikhin et
    al. 2020, arXiv:2006.16668), through transformers' DistributedConfig. All other weights are
    sharded, as fsdp does. Losses are those of one process with the same global batch.

    For mixtures of experts that transformers has a plan for, such as qwen3_moe, and adapters that
    train the model's own weights. Each rank reads only its part of the checkpoint.
    """

    shards = True
    needs_processes = True
    gathers = False

    class Options(PluginOptions):
        size: int | None = Field(None, ge=2, le=1024)
        """Ranks that the experts of a layer are spread over (transformers' ep_size). It divides
        their number. Default: all ranks of the run."""

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        yield from super().objections(recipe)
        if recipe.recipe.model == "tiny":
            yield Problem(
                ("model",),
                f"is tiny, and {self.name} shards checkpoints while they are read",
                f"name a checkpoint, or take {self.name} out of the recipe",
            )
        adapter = recipe.plugin("adapter")
        if adapter and issubclass(adapter, Adapter) and not adapter.trains_base_weights:
            yield Problem(
                self.at,
                f"shards the model's own weights, and adapter {recipe.recipe.adapter.name} adds "
                "others",
                "set adapter: full, or accelerator fsdp",
            )
        if recipe.recipe.adapter.name == "llama_pro":
            yield Problem(
                self.at,
                "shards layers while they are read, and llama_pro copies whole ones",
                "set adapter: full, or accelerator fsdp",
            )
        if "quantizer" in recipe.choices:
            yield Problem(self.at, "cannot shard quantized experts", "take out the quantizer")
        for choice in recipe.lists.get("accelerator", ()):
            if choice.at != self.at and getattr(choice.plugin, "shards", False):
                yield Problem(
                    self.at,
                    f"shards all weights, and so does {choice.entry.name}",
                    "leave out one of them",
                )

    @hookimpl(wrapper=True)
    def load_model(
        self, run: RunContext, request: LoadRequest
    ) -> Generator[None, LoadedModel, LoadedModel]:
        if request.trainable and request.weights == "load":
            from transformers.distributed import DistributedConfig

            from tunewright_expert_parallel.limits import check_config
            from tunewright_hf.models.while_loading import (
                check_shared_matrix,
                check_size,
                shard_while_loading,
            )

            size = self.options.size or run.world_size
            check_size(run, size, self.name)
            sizes = DistributedConfig(fsdp_size=run.world_size, ep_size=size)
            shard_while_loading(run, request, sizes, lambda config: check_config(config, size))
            loaded = yield
            check_shared_matrix(loaded.model, run.world_size)
            # with it, transformers' save_pretrained would wait for all ranks: results are gathered
            del loaded.model.config.distributed_config
            return loaded
        return (yield)

    @hookimpl(wrapper=True)
    def train_stage(
        self, run: RunContext, request: TrainRequest
    ) -> Generator[None, StageResult, StageResult]:
        from tunewright_expert_parallel.sharding import ExpertSharding
        from tunewright_hf.distributed.sharding import check_may_shard

        check_may_shard(run, request, self.name)
        request.sharding = ExpertSharding()
        return (yield)
