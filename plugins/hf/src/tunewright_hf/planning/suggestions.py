"""Changes of a recipe that make it fit, in the order of what they cost, each of them planned."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tunewright import registry
from tunewright.check import Resolved, resolve
from tunewright_hf.planning.plan import Planner, StagePlan

__all__ = ["Suggestion", "largest_batch", "largest_length", "suggestions"]

_MOST_DEVICES = 8


@dataclass
class Suggestion:
    """A change of the recipe that takes less memory."""

    why: str
    overrides: list[str]  # all that lead to `plan`, for the command line
    plan: StagePlan


def suggestions(planner: Planner, resolved: Resolved, number: int = 0) -> list[Suggestion]:
    """Changes until the stage fits on the planner's device: those that lower its memory are kept,
    and the next is tried on top of them. The last one is sharding in place of all others. Empty if
    it fits."""
    before = planner.plan(resolved, number)
    if before.fits:
        return []
    found: list[Suggestion] = []
    overrides: list[str] = []
    for why, change in _changes(resolved, number):
        if before.fits:
            break
        plan = planner.plan(_changed(resolved, [*overrides, *change]), number)
        if plan.peak < 0.98 * before.peak:
            overrides, before = [*overrides, *change], plan
            found.append(Suggestion(why, overrides, plan))
    if (sharded := _sharded(planner, resolved, number)) is not None:
        found.append(sharded)
    return found


def _changes(resolved: Resolved, number: int) -> Iterator[tuple[str, list[str]]]:
    """Yield possible changes, each with the overrides that make it."""
    stage = resolved.stages[number]
    training = stage.training
    if not training.activation_checkpointing:
        yield "recompute activations", ["training.activation_checkpointing=true"]
    if (rows := training.per_device_train_batch_size) > 1 and not training.tokens_per_batch:
        steps = rows * training.gradient_accumulation_steps
        yield (
            "one row per forward pass, with more accumulation",
            [
                "training.per_device_train_batch_size=1",
                f"training.gradient_accumulation_steps={steps}",
            ],
        )
    trains_all = getattr(resolved.plugin("adapter"), "trains_base_weights", False)
    if trains_all and _has("adapter", "lora"):
        yield "train LoRA in place of the weights", ["adapter=lora"]
    if resolved.choices["optimizer"].entry.name == "adamw":
        yield "8-bit optimizer states", ["optimizer={name: adamw, bits: 8}"]
    if "quantizer" not in resolved.choices and _has("quantizer", "bitsandbytes"):
        adapter = ["adapter=lora"] if trains_all else []
        yield "4-bit weights (QLoRA)", [*adapter, "quantizer=bitsandbytes"]


def _sharded(planner: Planner, resolved: Resolved, number: int) -> Suggestion | None:
    """Sharding over as few devices as are needed; None if that does not do, or if the recipe
    shards."""
    used = resolved.lists.get("accelerator", [])
    if not _has("accelerator", "fsdp") or any(choice.plugin.shards for choice in used):
        return None
    sections = [choice.section().model_dump(mode="json") for choice in used]
    ranks = 2 * resolved.recipe.launch.processes
    while ranks <= _MOST_DEVICES:
        overrides = [
            f"accelerators={json.dumps([*sections, 'fsdp'])}",
            f"launch.processes={ranks}",
            "training.activation_checkpointing=true",
        ]
        plan = planner.plan(_changed(resolved, overrides), number)
        if plan.fits:
            return Suggestion(f"shard over {ranks} devices", overrides, plan)
        ranks *= 2
    return None


def _has(kind: str, name: str) -> bool:
    return any(entry.name == name for entry in registry.entries(kind))


def _changed(resolved: Resolved, overrides: list[str]) -> Resolved:
    return resolve(resolved.recipe.as_mapping(), overrides, source=resolved.source, combined=False)


# ---- how much fits -------------------------------------------------------------------------------


def largest_batch(planner: Planner, resolved: Resolved, number: int = 0) -> int | None:
    """The most rows per forward pass that fit, of the largest batch's length; None if not one
    does."""
    plan = planner.plan(resolved, number)
    length = plan.tokens // plan.rows
    return _largest(planner, resolved, number, lambda rows: (rows, length), 1)


def largest_length(planner: Planner, resolved: Resolved, number: int = 0) -> int | None:
    """The most tokens per row that fit, with as many rows as the largest batch has; None if too
    few do."""
    rows = planner.plan(resolved, number).rows
    found = _largest(planner, resolved, number, lambda units: (rows, units * 64), 8)
    return None if found is None else found * 64


def _largest(
    planner: Planner,
    resolved: Resolved,
    number: int,
    size: Callable[[int], tuple[int, int]],
    start: int,
) -> int | None:
    """The largest number whose `size` fits: memory is nearly linear in it, so two plans tell about
    where it is, and further ones find it."""
    capacity = planner.device.memory if planner.device else 0
    low, high = (planner.plan(resolved, number, size(each)) for each in (start, 2 * start))
    if not low.fits:
        return None
    slope = max(1.0, (high.peak - low.peak) / start)
    guess = start + int((capacity - low.peak) / slope)
    while guess > start and not planner.plan(resolved, number, size(guess)).fits:
        guess = min(guess - 1, int(0.97 * guess))
    return max(guess, start)
