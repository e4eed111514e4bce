"""Recipes that an initialisation of LoRA cannot work with."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tunewright.check import Resolved
from tunewright.errors import Problem
from tunewright_hf.models.quantizers import CheckpointQuantizer, DequantizedCheckpoint

if TYPE_CHECKING:
    from tunewright_lora import Lora

__all__ = ["problems"]

_CHANGE_BASE = ("pissa", "olora", "corda", "lora_ga")


def problems(adapter: "Lora", recipe: Resolved) -> Iterator[Problem]:
    """Problems of `init` with the quantizer, and with the stages that begin with a new adapter."""
    init, at = adapter.options.init, (*adapter.at, "init")
    quantizer = recipe.plugin("quantizer")
    if init.startswith(_CHANGE_BASE) and quantizer and not _leaves_plain(quantizer):
        yield Problem(
            at,
            f"{init} changes the base weights, which {recipe.choices['quantizer'].entry.name} "
            "quantizes",
            "set init: loftq or eva, or take the quantizer out of the recipe",
        )
    if init == "loftq" and (quantizer is None or issubclass(quantizer, CheckpointQuantizer)):
        yield Problem(
            at,
            "loftq makes up for the rounding of a quantizer that quantizes while loading, and "
            + (
                "there is none"
                if quantizer is None
                else "this checkpoint has only quantized weights"
            ),
            "set a quantizer such as bitsandbytes, or another init",
        )
    for stage in _beginning(recipe):
        plugin, name = stage.choice.plugin, stage.choice.entry.name
        if init == "loftq" and "reference" in stage.choice.make().models:
            yield Problem(
                at,
                f"the reference model of {name} would be the quantized model "
                "without the correction of loftq",
                "put a stage sft before it, or set another init",
            )
        if init == "lora_ga" and (plugin.head != "causal_lm" or plugin.rows == "prompts"):
            yield Problem(
                at,
                f"lora_ga needs gradients of replies, which {name} does not have",
                "set init: eva or corda",
            )


def _leaves_plain(quantizer: Any) -> bool:
    return bool(issubclass(quantizer, DequantizedCheckpoint) or quantizer.trainable)


def _beginning(recipe: Resolved) -> Iterator[Any]:
    """The stages that begin with a new adapter: the first, and those after reward models, which
    hand on no policy."""
    for stage in recipe.stages:
        yield stage
        if stage.choice.plugin.head == "causal_lm":
            return
