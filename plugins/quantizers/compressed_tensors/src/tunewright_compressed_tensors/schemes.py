"""Parts of a quantization_config that cannot be dequantized here. Imports neither torch nor the
library: `recipe check` asks."""

from collections.abc import Iterator
from typing import Any

__all__ = ["unreadable"]

#: of compressed-tensors 0.20
_FORMATS = frozenset(
    {
        "dense",
        "float-quantized",
        "int-quantized",
        "mixed-precision",
        "mxfp4-pack-quantized",
        "mxfp6-pack-quantized",
        "mxfp8-quantized",
        "naive-quantized",
        "nvfp4-pack-quantized",
        "pack-quantized",
    }
)


def unreadable(stored: dict[str, Any]) -> Iterator[str]:
    """Reasons why a checkpoint cannot be read.

    stored: the quantization_config of its config.json, of any content. transformers 5.23 would load
    mixed and transformed weights wrongly, without an error.
    """
    groups = _groups(stored)
    sparse = _object(stored.get("sparsity_config")).get("format") or "dense"
    for name in {str(stored.get("format", "dense")), *(str(sparse),)} - _FORMATS:
        yield f"are in the format {name!r:.60}, which compressed-tensors has given up"
    if any(weights.get("actorder") in (True, "group", "dynamic") for weights, _ in groups):
        yield "are ordered by activations (actorder: group), which compressed-tensors has given up"
    if _object(stored.get("transform_config")).get("config_groups"):
        yield "are transformed (transform_config), which is not undone here"
    for experts in (False, True):
        kinds = {_kind(weights) for weights, of_experts in groups if of_experts == experts}
        if len(kinds) > 1:
            which = "experts" if experts else "layers"
            yield f"are quantized in {len(kinds)} ways in its {which}, and only one is read"


def _groups(stored: dict[str, Any]) -> list[tuple[dict[str, Any], bool]]:
    """Form of the weights, and whether those of experts are quantized, by group."""
    found = []
    for group in _object(stored.get("config_groups")).values():
        group = _object(group)
        if weights := _object(group.get("weights")):
            targets = [str(each) for each in group.get("targets") or []]
            experts = any(each.startswith("re:") and "experts" in each for each in targets)
            kind = group.get("format") or stored.get("format")
            found.append((weights | {"format": kind}, experts))
    return found


def _kind(weights: dict[str, Any]) -> tuple[str, ...]:
    """The part of a scheme that dequantizing depends on."""
    keys = ("format", "num_bits", "type", "strategy", "symmetric", "group_size", "block_structure")
    return tuple(str(weights.get(key)) for key in keys)


def _object(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}
