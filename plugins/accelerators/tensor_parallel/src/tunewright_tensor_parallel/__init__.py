"""Tensor parallelism: each rank holds a part of every layer's matrices."""

from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from pydantic import Field

from tunewright import PluginOptions, Problem, hookimpl
from tunewright.plugin import Accelerator
from tunewright.types import (
    AdapterRequest,
    LoadedModel,
    LoadRequest,
    RunContext,
    StageResult,
    TrainRequest,
)

if TYPE_CHECKING:
    from tunewright.check import Resolved


class TensorParallel(Accelerator):
    """Splits the matrices of attention and MLP over the ranks of a group, which compute each batch
    together (Megatron-LM; Shoeybi et al. 2019, arXiv:1909.08053), through transformers'
    DistributedConfig and the plan that it has for the model. With several groups weights are
    sharded over these too, as fsdp does. Losses are those of one process with the same global
    batch.

    For LoRA, and for adapters that train the model's own weights. Each rank reads only its part of
    the checkpoint. The ranks of a group exchange activations in every layer: keep a group within
    one host.
    """

    shards = True
    needs_processes = True
    gathers = False

    class Options(PluginOptions):
        size: int | None = Field(None, ge=2, le=1024)
        """Ranks that share a batch and its layers (transformers' tp_size), consecutive ones. It
        divides the numbers of heads. Default: all ranks of the run."""

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        yield from super().objections(recipe)
        if recipe.recipe.model == "tiny":
            yield Problem(
                ("model",),
                f"is tiny, and {self.name} shards checkpoints while they are read",
                f"name a checkpoint, or take {self.name} out of the recipe",
            )
        yield from self._objections_to_adapter(recipe)
        if "quantizer" in recipe.choices:
            yield Problem(self.at, "cannot split quantized weights", "take out the quantizer")
        for choice in recipe.lists.get("accelerator", ()):
            if choice.at != self.at and getattr(choice.plugin, "needs_processes", False):
                yield Problem(
                    self.at,
                    f"spreads the work over all ranks, and so does {choice.entry.name}",
                    "leave out one of them",
                )

    def _objections_to_adapter(self, recipe: "Resolved") -> Iterator[Problem]:
        adapter, name = recipe.choices["adapter"].make(), recipe.recipe.adapter.name
        ranks = recipe.recipe.launch.ranks
        if name == "lora":
            options: Any = adapter.options
            wrong = {"init": options.init != "default"}
            wrong |= {each: getattr(options, each) for each in ("dora", "experts")}
            wrong["modules_to_save"] = options.modules_to_save
            for each in (each for each, found in wrong.items() if found):
                problem = f"does not go together with accelerator {self.name}"
                yield Problem(("adapter", each), problem, "leave it out, or take accelerator fsdp")
            if ranks > 1 and self.options.size not in (None, ranks):
                problem = f"is {self.options.size}, and with lora a group is all {ranks} ranks"
                yield Problem((*self.at, "size"), problem, "leave it out, or take accelerator fsdp")
        elif not adapter.trains_base_weights or name == "llama_pro":
            yield Problem(
                self.at,
                f"splits the model's own weights, and adapter {name} adds others",
                "set adapter: full or lora, or accelerator fsdp",
            )

    @hookimpl(wrapper=True)
    def load_model(
        self, run: RunContext, request: LoadRequest
    ) -> Generator[None, LoadedModel, LoadedModel]:
        if request.trainable and request.weights == "load":
            from transformers.distributed import DistributedConfig

            from tunewright_hf.models.while_loading import (
                check_shared_matrix,
                check_size,
                shard_while_loading,
            )
            from tunewright_tensor_parallel.limits import (
                check_config,
                check_embeddings,
                share_embeddings,
            )

            size, dtype = self._size(run), request.dtype
            check_size(run, size, self.name)
            sizes = DistributedConfig(tp_size=size, fsdp_size=run.world_size // size)
            shard_while_loading(run, request, sizes, lambda config: check_config(config, size))
            request.config_edits.append(share_embeddings)
            if not run.plugin("adapter").trains_base_weights:
                request.dtype = dtype  # the model's own weights are not trained
            loaded = yield
            check_embeddings(loaded.model)
            if size < run.world_size:
                check_shared_matrix(loaded.model, run.world_size)
            # with it, transformers' save_pretrained would wait for all ranks: results are gathered
            del loaded.model.config.distributed_config
            return loaded
        return (yield)

    @hookimpl(wrapper=True)
    def apply_adapter(
        self, run: RunContext, request: AdapterRequest
    ) -> Generator[None, LoadedModel, LoadedModel]:
        if not request.trainable or run.plugin("adapter").trains_base_weights:
            return (yield)
        from tunewright_tensor_parallel.adapters import split_adapter, whole_shapes

        with whole_shapes(request.loaded.model):
            loaded = yield
        split_adapter(loaded.model)
        return loaded

    @hookimpl(wrapper=True)
    def train_stage(
        self, run: RunContext, request: TrainRequest
    ) -> Generator[None, StageResult, StageResult]:
        from tunewright_hf.distributed.sharding import check_may_shard
        from tunewright_hf.losses.causal_lm import replaced
        from tunewright_tensor_parallel.sharding import SameDropout, TensorSharding

        check_may_shard(run, request, self.name)
        request.sharding = TensorSharding()
        size = self._size(run)
        before = run.data_rank, run.data_world_size
        run.data_rank, run.data_world_size = run.rank // size, run.world_size // size
        model = request.loaded.model
        callbacks = [*getattr(model, "training_callbacks", ()), SameDropout(run.data_rank)]
        try:
            with replaced(model, "training_callbacks", callbacks):
                return (yield)
        finally:
            run.data_rank, run.data_world_size = before

    def _size(self, run: RunContext) -> int:
        return self.options.size or run.world_size
