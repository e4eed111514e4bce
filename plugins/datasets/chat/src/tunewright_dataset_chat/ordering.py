"""Combinations of `order` and `mixing` with other fields that are refused."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tunewright import Problem

if TYPE_CHECKING:
    from tunewright.check import Resolved
    from tunewright.resolved import ResolvedStage
    from tunewright.yamlio import Path_


def problems(at: "Path_", options: Any, recipe: "Resolved") -> Iterator[Problem]:
    """Problems of a recipe whose dataset has these options. at: of the dataset's section."""
    if options.order != "shuffled":
        yield from _of_order((*at, "order"), options)
        for stage in recipe.stages:
            yield from _of_batching(options.order, stage)
    if options.mixing == "online":
        if options.streaming:
            problem = "online needs all sources before training, and streaming reads them later"
            yield Problem((*at, "mixing"), problem, "set interleave")
        for stage in recipe.stages:
            yield from _of_online_mixing((*at, "mixing"), stage)


def _of_order(at: "Path_", options: Any) -> Iterator[Problem]:
    if options.streaming:
        problem = (
            f"{options.order} needs all examples before training, and streaming reads them later"
        )
        hint = "sort the source, and set shuffle_buffer: 1 and training.batching: random"
        yield Problem(at, problem, hint)
    elif options.mixing == "online" or (options.mixing, options.order) == ("interleave", "given"):
        problem = f"{options.order} does not go with mixing {options.mixing}, which orders sources"
        yield Problem(at, problem, "set mixing: concatenate")


def _of_batching(order: str, stage: "ResolvedStage") -> Iterator[Problem]:
    if stage.training.batching != "random":
        problem = (
            f"is {stage.training.batching}, which sorts and shuffles examples: dataset.order: "
            f"{order} would be lost"
        )
        yield Problem(stage.place("batching"), problem, "set random")
    if getattr(stage.choice.options, "packing", False):
        problem = f"chooses the order of examples: dataset.order: {order} would be lost"
        yield Problem((*stage.choice.at, "packing"), problem, "leave it out")


def _of_online_mixing(at: "Path_", stage: "ResolvedStage") -> Iterator[Problem]:
    name = stage.choice.entry.name
    if stage.choice.plugin.rows == "prompts":
        problem = f"online goes by the loss, which says nothing of the prompts of {name}"
        yield Problem(at, problem, "set interleave")
    if len(stage.data) < 2:
        problem = f"online chooses among sources, and stage {name} has {len(stage.data)}"
        yield Problem(at, problem, "set concatenate, or list more sources")
    if any(entry.weight != 1 for entry in stage.data):
        problem = "online finds the shares of sources itself, and a source has a weight"
        yield Problem(at, problem, "leave weight out, or set interleave")
    if stage.training.dataloader_workers:
        problem = "prepares batches ahead, and mixing online chooses each after the step before"
        yield Problem(stage.place("dataloader_workers"), problem, "leave it out")
