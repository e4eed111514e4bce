"""Several LoRA adapters on one model, each used by the rows that name it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from tunewright import RunError
from tunewright.types import AdapterRequest, LoadedModel, RunContext
from tunewright_hf.models import peft_config, safety
from tunewright_hf.models.hub import read_json
from tunewright_hf.models.peft_import import without_bitsandbytes
from tunewright_hf.models.peft_model import without_harmless_warnings

__all__ = ["add_adapters"]

_HINT = "merge it into the model: `tunewright export`"


def add_adapters(
    run: RunContext, loaded: LoadedModel, folders: Mapping[str, Path]
) -> list[str | None]:
    """Add adapters to a model, in place. Returns PEFT's names for the rows of the model itself and
    of each adapter; None: the model without any.

    Raises RunError for adapters that cannot share a batch with others: only LoRA can, without DoRA
    and without whole modules (PEFT, "inference with different adapters in the same batch").
    """
    with without_bitsandbytes():
        import peft

        own = "default" if isinstance(loaded.model, peft.PeftModel) else None
        if own and folders and loaded.model.peft_config[own].peft_type != "LORA":
            raise RunError("only LoRA adapters can be served beside each other", hint=_HINT)
        names: list[str | None] = [own]
        for number, (name, folder) in enumerate(folders.items()):
            config = _config(run, loaded, folder)
            added = f"served_{number}"
            if isinstance(loaded.model, peft.PeftModel):
                loaded.model.add_adapter(added, config)
            else:
                with without_harmless_warnings():
                    loaded.model = peft.get_peft_model(loaded.model, config, adapter_name=added)
            _load(peft, loaded.model, folder, added, name)
            names.append(added)
    if folders:
        loaded.model.eval().requires_grad_(False)
    return names


def _config(run: RunContext, loaded: LoadedModel, folder: Path) -> Any:
    place = folder / "adapter_config.json"
    if not place.is_file():
        raise RunError("is no adapter: there is no adapter_config.json", place=str(folder))
    kind = read_json(place).get("peft_type")
    plugin = _lora(run)
    if kind != "LORA" or plugin is None:
        problem = f"is an adapter of type {kind}; only LoRA adapters can be served"
        raise RunError(problem, place=str(place), hint=_HINT)
    request = AdapterRequest(loaded, adapter_path=folder, trainable=False)
    config = peft_config.read(plugin, request, "CAUSAL_LM")
    for field in ("modules_to_save", "use_dora", "trainable_token_indices"):
        if getattr(config, field, None):
            problem = f"{field} is set; such an adapter cannot share a batch with others"
            raise RunError(problem, place=str(place), hint=_HINT)
    return config


def _lora(run: RunContext) -> Any:
    """The installed plugin that knows PEFT's LoRA."""
    for name in run.installed("adapter"):
        plugin = run.named("adapter", name).plugin
        if getattr(plugin, "peft_type", None) == "LORA":
            return plugin
    return None


def _load(peft: Any, model: Any, folder: Path, added: str, name: str) -> None:
    safety.check_weights(folder, "adapter_model")
    weights = load_file(folder / "adapter_model.safetensors")
    expected = peft.get_peft_model_state_dict(
        model, adapter_name=added, save_embedding_layers=False
    )
    if differing := sorted(expected.keys() ^ weights.keys()):
        problem = f"adapter {name!r} does not fit the model: {differing[0]} and "
        problem += f"{len(differing) - 1} more are there or in the model, not both"
        raise RunError(problem, place=str(folder))
    peft.set_peft_model_state_dict(model, weights, adapter_name=added)
