"""Loading a checkpoint whose code is on the hub only as the native class that computes the same."""

from pathlib import Path
from typing import Any

import transformers
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
)

from tunewright_hf.models import native as natives
from tunewright_hf.models.errors import PUBLISHED, one_line
from tunewright_hf.models.native import MARK, Native, Rule
from tunewright_hf.models.native_weights import NativeWeights

#: head → class of each model type; all others are scores of sequences
_CLASSES = {
    "causal_lm": MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "steps": MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
}


def find(config: dict[str, Any], path: Path) -> Native | None:
    """The native form of a checkpoint that transformers has no class for, with the original config
    kept in its own; None: there is none, or none is needed. Raises RunError.

    config: sanitised. path: of config.json, for errors.
    """
    model_type = config.get("model_type")
    if model_type in transformers.CONFIG_MAPPING:
        return None
    with one_line(f"is no config of {model_type}", str(path), PUBLISHED):
        found = natives.find(config)
    if found is not None:
        found.config[MARK] = config
    return found


def load(
    folder: Path, native: Native, head: str, arguments: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """from_pretrained of the native class, with tensors that are converted while they are read.

    arguments: for from_pretrained. Returns the model and what was missing, as from_pretrained does
    with output_loading_info.
    """
    names = _CLASSES.get(head, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)
    settings = folder / "generation_config.json"
    if settings.is_file():
        arguments["generation_config"] = transformers.GenerationConfig.from_pretrained(folder)
    model, report = getattr(transformers, names[native.config["model_type"]]).from_pretrained(
        None, state_dict=NativeWeights(folder, native.rules), **arguments
    )
    return model, report


def hold_constants(model: Any) -> None:
    """Keep what the original lacks from being trained, in a model that was loaded as a native one,
    now or before it was saved. Raises RunError."""
    natives.hold_constants(model, _rules(model))


def dequantized(model: Any) -> Any:
    """model.dequantize(), whose new layers take parameters alone."""
    rules = _rules(model)
    natives.release_constants(model, rules)
    plain = model.dequantize()
    natives.hold_constants(plain, rules)
    return plain


def _rules(model: Any) -> tuple[Rule, ...]:
    """The rules by which a model's weights were read; none for one that was not."""
    original = getattr(model.config, MARK, None)
    if not isinstance(original, dict):
        return ()
    with one_line(f"{MARK} is no config", model.name_or_path):
        found = natives.find(original)
    return found.rules if found is not None else ()


def said(place: str, model: Any, native: Native) -> str:
    """The notice on a model that was loaded as a native class."""
    original, name = native.config[MARK]["model_type"], type(model).__name__
    parts = [
        f"{place} is loaded as {name}, which computes the same: the code of {original} beside its "
        f"weights is not run, and what is saved is a {name} (or `tunewright export RUN --to "
        "safetensors layout=original`)",
        *native.notes,
        *(rule.folded for rule in native.rules if rule.folded),
    ]
    return "; ".join(parts)
