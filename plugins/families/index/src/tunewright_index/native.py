"""Index-1.9B as Llama: the same names; the rows of its head are normalised."""

from collections.abc import Mapping
from typing import Any

from tunewright_hf.models.native import DECODER, Native, config_of, drop, normalized, same


def native(config: Mapping[str, Any]) -> Native | None:
    """None for models with scaled positions."""
    if config.get("architectures") != ["IndexForCausalLM"]:
        return None
    if config.get("rope_scaling") or config.get("rope_ratio", 1) != 1:
        return None
    head = "lm_head.weight"
    folded = bool(config.get("norm_head"))
    rules = (
        *same(*(name for name in DECODER if name != head)),
        *([normalized(head)] if folded else same(head)),
        *drop("**.rotary_emb.inv_freq"),
    )
    return Native(config_of("llama", config), rules)
