"""Combinations that the base classes of plugins refuse, from what plugins declare of themselves."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tunewright.errors import Problem

if TYPE_CHECKING:
    from tunewright.check import Resolved
    from tunewright.plugin import Accelerator, Optimizer, Quantizer


def optimizer_problems(optimizer: "Optimizer", recipe: "Resolved") -> Iterable[Problem]:
    """Problems of an optimizer with training, stages and accelerators of the recipe."""
    at_once = optimizer.steps_in_backward
    for stage in recipe.stages:
        training = stage.training
        for field in ("gradient_accumulation_steps", "rows_per_step"):
            count = getattr(training, field) or 1
            if at_once and count > 1:
                yield Problem(
                    stage.place(field),
                    f"is {count}, and {optimizer.name} updates inside the backward pass: there are "
                    "no gradients to add up",
                    "leave it out, or take another optimizer",
                )
        if at_once and training.max_grad_norm:
            yield Problem(
                stage.place("max_grad_norm"),
                f"is {training.max_grad_norm:g}, and {optimizer.name} updates inside the backward "
                "pass: there is no norm of all gradients",
                "set 0, or another optimizer",
            )
        if at_once and training.precision == "fp16":
            yield Problem(
                stage.place("precision"),
                f"is fp16, which scales the loss, and {optimizer.name} updates inside the backward "
                "pass",
                "set bf16 or fp32, or another optimizer",
            )
        if training.stochastic_rounding and not optimizer.elementwise:
            yield Problem(
                stage.place("stochastic_rounding"),
                f"cannot round the updates of {optimizer.name}, which are made of whole matrices",
                "set false, or an elementwise optimizer such as adamw",
            )
    if optimizer.switches_parameters:
        yield from problems_of_switching(optimizer.name, recipe)
    if not optimizer.elementwise:
        for choice in recipe.lists.get("accelerator", ()):
            if getattr(choice.plugin, "shards", False):
                yield Problem(
                    optimizer.at,
                    f"{optimizer.name} needs whole matrices, and {choice.entry.name} shards them",
                    f"set an elementwise optimizer such as adamw, or leave out {choice.entry.name}",
                )


def problems_of_switching(name: str, recipe: "Resolved") -> Iterable[Problem]:
    """Problems of plugin `name`, which changes the trained parameters during a training."""
    for choice in recipe.lists.get("accelerator", ()):
        if getattr(choice.plugin, "fixes_parameters", False):
            yield Problem(
                choice.at,
                f"{choice.plugin.__name__} cannot train other parameters than it began with, and "
                f"{name} switches them",
                f"leave out {choice.entry.name}, or {name}",
            )


def accelerator_problems(accelerator: "Accelerator", recipe: "Resolved") -> Iterable[Problem]:
    """Problems of an accelerator with the number of processes, and with stages that generate."""
    launch = recipe.recipe.launch
    # torchrun and srun say how many there are
    ranks = int(os.environ.get("WORLD_SIZE", launch.ranks))
    if accelerator.needs_processes and ranks == 1:
        yield Problem(
            accelerator.at,
            f"{accelerator.name} needs several processes, and there is one",
            "set launch.processes, or take it out of the recipe",
        )
    for stage in () if accelerator.gathers else recipe.stages:
        if stage.choice.make().generates:
            yield Problem(
                accelerator.at,
                f"{stage.choice.entry.name} generates text, which needs the whole model on each "
                f"rank, and {accelerator.name} keeps it apart",
                "take fsdp, or deepspeed with stage: 2, in its place",
            )


def quantizer_problems(
    quantizer: "Quantizer", recipe: "Resolved", trains_weights: bool
) -> Iterable[Problem]:
    """Problems of a quantizer with the adapter, and with accelerators that shard.

    trains_weights: whether the adapter trains the model's own weights.
    """
    if trains_weights and not quantizer.trainable:
        yield Problem(
            quantizer.at,
            f"quantized weights cannot be trained, and adapter {recipe.recipe.adapter.name} "
            "trains them",
            "train an adapter, such as lora, or take the quantizer out of the recipe",
        )
    for choice in recipe.lists.get("accelerator", []):
        name = choice.entry.name
        if choice.plugin.shards and name not in quantizer.sharded_by:
            yield Problem(
                quantizer.at,
                f"{name} cannot shard weights that {quantizer.name} has quantized",
                "bitsandbytes in 4 bits with accelerator fsdp; or no quantizer, or not " + name,
            )
