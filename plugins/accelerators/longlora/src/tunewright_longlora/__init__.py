"""LongLoRA: attention within groups of tokens, in training only."""

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING

from pydantic import Field

from tunewright import PluginOptions, Problem, hookimpl
from tunewright.plugin import Accelerator
from tunewright.types import RunContext, StageResult, TrainRequest

if TYPE_CHECKING:
    from tunewright.check import Resolved


class LongLora(Accelerator):
    """Shifted sparse attention (S2-Attn; Chen et al. 2023, arXiv:2309.12307): in training, tokens
    attend within groups, and half of the heads within groups that are shifted by half a group. For
    contexts many times longer than those of pretraining, with rope_scaling: attention takes time
    and memory by the group, not by the context. Evaluation, sampling and the result have full
    attention, and nothing of it is saved: any adapter goes with it.

    The paper trains LoRA with embeddings and norms too:
    `adapter: {name: lora, modules_to_save: [embed_tokens, input_layernorm,
    post_attention_layernorm, norm]}`. The first and the last half of a group stand alone in the
    shifted heads, where the paper's code rolls them together. For models whose layers all have full
    attention, through transformers' AttentionInterface.
    """

    class Options(PluginOptions):
        group_size: int | None = Field(None, ge=2, le=2**24, multiple_of=2)
        """Tokens of a group. Default: a quarter of the stage's max_length, as in the paper."""

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        if getattr(recipe.options("adapter"), "virtual_tokens", None):
            yield Problem(
                self.at,
                f"shifts groups of tokens, and adapter {recipe.recipe.adapter.name} puts virtual "
                "ones before them",
                "set adapter: lora",
            )
        for stage in recipe.stages:
            plugin, name = stage.choice.plugin, stage.choice.entry.name
            if getattr(stage.choice.options, "packing", False):
                yield Problem(
                    (*stage.choice.at, "packing"),
                    "groups of longlora would join tokens of different packed examples",
                    "set packing: false",
                )
            if plugin.head != "causal_lm" or plugin.rows not in ("text", "messages"):
                yield Problem(
                    self.at,
                    f"{name} compares what the model computes in training with full attention",
                    "take longlora out of the recipe, or train this stage in a run of its own",
                )

    @hookimpl(wrapper=True)
    def train_stage(
        self, run: RunContext, request: TrainRequest
    ) -> Generator[None, StageResult, StageResult]:
        from tunewright_longlora.shifted import shifted_attention

        size = self.options.group_size or 2 * max(1, request.training.max_length // 8)
        with shifted_attention(request.loaded.model, size):
            return (yield)
