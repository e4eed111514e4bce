"""Recipes and adapters that a server cannot serve."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright import Problem
from tunewright_hf.models.peft import PeftAdapter

if TYPE_CHECKING:
    from tunewright.check import Resolved
    from tunewright_engine_remote import RemoteEngine

_MERGE = "set engine.merge: true"
#: of adapter_config.json, and what a server would leave out
_UNSERVED = ("modules_to_save", "use_dora", "trainable_token_indices", "target_parameters")


def problems(engine: "RemoteEngine", recipe: "Resolved") -> Iterator[Problem]:
    """Problems of an engine with the stages, the adapter and the quantizer of a recipe."""
    title, options = engine.title, engine.options
    for stage in recipe.stages:
        name, plugin = stage.choice.entry.name, stage.choice.plugin
        if plugin.rows == "prompts":
            yield Problem(
                engine.at,
                f"{name} generates with the model that it trains, whose weights change at every "
                f"step; {title} serves what was saved",
                f"leave engine out, and serve the result: tunewright serve RUN --engine "
                f"{engine.name}",
            )
        if plugin.head == "score":
            yield Problem(
                engine.at, f"{title} generates text, and {name} trains a reward model", "engine: hf"
            )
    if not options.merge and not options.address:
        yield from _unserved(engine, recipe, _MERGE)


def update_problems(engine: "RemoteEngine", recipe: "Resolved") -> Iterator[Problem]:
    """Problems of an engine that gets the weights of a recipe's model while it is trained."""
    if engine.options.merge:
        problem = f"{engine.title} gets the adapter itself: merge does nothing"
        yield Problem(engine.at, problem, "take it out")
    yield from _unserved(engine, recipe, "")


def _unserved(engine: "RemoteEngine", recipe: "Resolved", remedy: str) -> Iterator[Problem]:
    title = engine.title
    adapter, quantizer = recipe.choices["adapter"], recipe.choices.get("quantizer")
    if reason := _unserved_adapter(adapter.plugin, adapter.options):
        yield Problem(engine.at, f"{title} applies no adapter {reason}", remedy)
    if quantizer and quantizer.entry.name not in engine.quantizers:
        yield Problem(engine.at, quantizer_problem(title, quantizer.entry.name), remedy)


def quantizer_problem(title: str, name: str) -> str:
    return f"{title} does not quantize as {name} does: its answers would be another model's"


def _unserved_adapter(adapter: Any, options: Any) -> str:
    """The kind of adapter, if it cannot be served: empty for LoRA and for trained models."""
    if not issubclass(adapter, PeftAdapter):
        return ""
    if adapter.peft_type != "LORA":
        return f"of type {adapter.peft_type}"
    found = options.model_dump()
    if found.get("modules_to_save"):
        return "with modules_to_save"
    return "with dora" if found.get("dora") else ""


def config_problem(config: Mapping[str, Any]) -> str:
    """Reason why a saved adapter cannot be served; empty if it can. config: adapter_config.json."""
    if config.get("peft_type") != "LORA":
        return f"is an adapter of type {config.get('peft_type')}"
    for field in _UNSERVED:
        if config.get(field):
            return f"has {field}"
    return "trains biases" if config.get("bias", "none") != "none" else ""


def is_idle(folder: Path) -> bool:
    """Whether an adapter holds no weights, and would be served as the base model without a word."""
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", "np") as file:
        return not any("lora_" in name for name in file.keys())  # noqa: SIM118 - not a dict
