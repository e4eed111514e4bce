"""Sequence parallelism: several ranks compute the layers of one sequence together."""

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from tunewright import PluginOptions, Problem, RecipeError, hookimpl
from tunewright.plugin import Accelerator
from tunewright.types import LoadedModel, LoadRequest, RunContext, StageResult, TrainRequest

if TYPE_CHECKING:
    from tunewright.check import Resolved


class SequenceParallel(Accelerator):
    """Splits each batch along its sequence: every rank of a group runs the layers on its part of
    the tokens, and attention exchanges what it needs. Sequences can be as many times longer as a
    group has ranks, for the same activations on each. Losses and gradients are those of one process
    with the batch of a group.

    Attention is torch's sdpa, with the model's own masks: packed examples do not see each other.
    Evaluation is split too, text generation is not. Combine it with fsdp for large models.
    """

    needs_processes = True

    class Options(PluginOptions):
        method: Literal["ulysses", "allgather"] = "ulysses"
        """Exchange in attention. ulysses: each rank computes some heads over the whole sequence
        (DeepSpeed Ulysses; Jacobs et al. 2023, arXiv:2309.14509). allgather: each rank computes its
        own queries over all keys and values, for any number of heads; torch's and accelerate's
        context parallelism by default."""
        size: int | None = Field(None, ge=2, le=1024)
        """Ranks that share a sequence, consecutive ones. Default: all ranks of the run."""

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        yield from super().objections(recipe)
        launch, size = recipe.recipe.launch, self.options.size
        ranks = launch.ranks
        if size and ranks > 1 and ranks % size:
            yield Problem(
                (*self.at, "size"),
                f"is {size}, and {ranks} processes cannot be split into groups of that size",
                "set a divisor of launch.processes × launch.nodes",
            )
        for stage in recipe.stages:
            if stage.choice.plugin.rows not in ("text", "messages"):
                yield Problem(
                    self.at,
                    f"{stage.choice.entry.name} needs log-probabilities of whole sequences, and "
                    f"{self.name} leaves each rank a part",
                    "take it out of the recipe, or train this stage in a run of its own",
                )
        if getattr(recipe.options("adapter"), "virtual_tokens", None):
            yield Problem(
                self.at,
                f"cannot split the virtual tokens of adapter {recipe.recipe.adapter.name}",
                "set another adapter, such as lora",
            )
        attention = getattr(recipe.options("family"), "attention", None)
        if attention not in (None, "sdpa"):
            yield Problem(
                ("family", "attention"),
                f"is {attention}, and {self.name} computes attention by sdpa",
                "leave it out",
            )

    @hookimpl(wrapper=True)
    def load_model(
        self, run: RunContext, request: LoadRequest
    ) -> Generator[None, LoadedModel, LoadedModel]:
        if request.trainable and request.weights != "none":
            from tunewright_sequence_parallel.limits import check_config

            size = self._size(run)
            request.config_edits.append(lambda config: check_config(config, self.options, size))
        return (yield)

    @hookimpl(wrapper=True)
    def train_stage(
        self, run: RunContext, request: TrainRequest
    ) -> Generator[None, StageResult, StageResult]:
        from tunewright_sequence_parallel.sharding import SequenceSharding

        size = self._size(run)
        sharding = SequenceSharding(self.options.method, size, run.rank % size)
        request.batch_edits.append(sharding.own_labels)
        before = run.data_rank, run.data_world_size
        run.data_rank, run.data_world_size = run.rank // size, run.world_size // size
        try:
            with sharding.active(request.loaded.model):
                return (yield)
        finally:
            run.data_rank, run.data_world_size = before

    def _size(self, run: RunContext) -> int:
        """Ranks of a group. Raises RecipeError where the run's cannot be split so."""
        size = self.options.size or run.world_size
        if run.world_size == 1 or run.world_size % size:
            raise RecipeError(
                f"{self.name} splits sequences over {self.options.size or 'several'} ranks, and "
                f"the run has {run.world_size}",
                place="accelerators",
                hint="set launch.processes to a multiple of it",
            )
        return size
