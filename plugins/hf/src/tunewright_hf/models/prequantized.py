"""Checkpoints whose weights are quantized already, as their config.json says. Imports neither torch
nor transformers."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunewright import TunewrightError
from tunewright_hf.models import hub

__all__ = ["STORED", "differences", "method", "of_folder", "plugin_name", "stored"]

#: what a checkpoint of a method that also quantizes while loading says of its weights
STORED = (
    "load_in_4bit",
    "load_in_8bit",
    "bnb_4bit_quant_type",
    "bnb_4bit_use_double_quant",
    "quant_type",
)


def stored(config: dict[str, Any]) -> dict[str, Any] | None:
    """The quantization_config of a config.json, which models with several parts may have in that
    of the text; None for plain weights."""
    text = config.get("text_config")
    parts = (config, text if isinstance(text, dict) else {})
    found = next((p["quantization_config"] for p in parts if p.get("quantization_config")), None)
    return found if isinstance(found, dict) else None


def method(stored: dict[str, Any]) -> str:
    """quant_method. Old checkpoints of bitsandbytes have none."""
    if stored.get("load_in_4bit") or stored.get("load_in_8bit"):
        return "bitsandbytes"
    return f"{stored.get('quant_method')!s:.60}"  # a stranger's: any length


def plugin_name(stored: dict[str, Any]) -> str:
    """Name of the quantizer that reads the weights: compressed-tensors is compressed_tensors."""
    return method(stored).replace("-", "_")


def of_folder(model: str) -> dict[str, Any] | None:
    """The quantization_config of a checkpoint in a folder, None for others: `recipe check` asks no
    hub."""
    if model == "tiny":
        return None
    try:
        path = Path(model).expanduser() / "config.json"
        return stored(hub.read_json(path)) if path.is_file() else None
    except (OSError, RuntimeError, ValueError, TunewrightError):  # told where the model is loaded
        return None


def differences(expected: Mapping[str, Any], stored: dict[str, Any]) -> Iterator[str]:
    """Differences between a checkpoint's quantization and the recipe's."""
    for key, value in expected.items():
        if key in stored and stored[key] != value:
            yield f"{key} is {value}, and the model's weights have {stored[key]!r:.60}"
