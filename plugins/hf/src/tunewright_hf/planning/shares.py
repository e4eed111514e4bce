"""Memory of one rank: what accelerators shard over the ranks, or keep in CPU memory."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tunewright.check import Resolved
from tunewright_hf.planning.measure import Measurement
from tunewright_hf.planning.run import Architecture
from tunewright_hf.planning.storages import Segment

__all__ = ["divided", "on_one_rank"]


def divided(resolved: Resolved, *, on_gpu: bool) -> tuple[dict[str, Any], Resolved, list[str]]:
    """Return (parts that accelerators divide, recipe, notes): the recipe as it runs on fake
    tensors, in one process and with the precision of the device that is planned for, and notes on
    accelerators that are not counted."""
    divides: dict[str, Any] = {}
    kept, notes = [], []
    for choice in resolved.lists.get("accelerator", []):
        plugin = choice.make()
        if shares := plugin.divides():
            divides |= shares
        elif not plugin.planned or plugin.needs_processes:
            notes.append(f"accelerator {choice.entry.name} is not counted")
        else:
            kept.append(choice)
    stages = []
    for stage in resolved.stages:
        training = stage.training
        # fp16 is as wide as bf16
        if training.precision == "fp16" or (on_gpu and training.precision == "auto"):
            training = training.model_copy(update={"precision": "bf16"})
        stages.append(replace(stage, training=training))
    lists = {**resolved.lists, "accelerator": kept, "logger": []}
    return divides, replace(resolved, stages=stages, lists=lists), notes


def on_one_rank(
    found: Measurement,
    sizes: Architecture,
    divides: Mapping[str, Any],
    ranks: int,
    gathered_bytes: int,
    generates: bool = False,
) -> Segment:
    """The part of a step that takes most on one of `ranks` ranks.

    divides: as `Accelerator.divides` says. gathered_bytes: of a parameter while its layer is
    computed. Layers are gathered one after the other, the next one while the last is computed;
    embeddings and head stay gathered. generates: whether the stage generates with all weights
    gathered, as before a step's first forward pass.
    """

    def of_a_rank(name: Any) -> Segment:
        segment = found.segments[name]
        parts = {
            part: _share(size, divides.get(part), ranks) for part, size in segment.parts.items()
        }
        layer = gathered_bytes * sizes.largest_layer
        if generates and name == "prepare" and "weights" in divides:
            parts["weights"] += segment.parts["weights"]
        elif divides.get("weights") == "gathered":
            parts["weights"] += gathered_bytes * sizes.parameters
        elif "weights" in divides:
            parts["weights"] += gathered_bytes * sizes.outside_layers + 2 * layer
        if "copy" in divides and gathered_bytes == 4:
            parts["optimizer"] = parts.get("optimizer", 0) + -(-4 * sizes.trained // ranks)
        # those of the layer that is computed, before they are sharded
        if divides.get("gradients") == "gathered":
            parts["gradients"] = gathered_bytes * sizes.trained
        elif "gradients" in divides and sizes.trained > sizes.parameters // 2:
            parts["gradients"] = parts.get("gradients", 0) + layer
        return Segment(sum(parts.values()), parts)

    return max(map(of_a_rank, found.segments), key=lambda each: each.peak)


def _share(size: int, how: str | None, ranks: int) -> int:
    if how == "offloaded":
        return 0
    return -(-size // ranks) if how else size
