"""XVERSE as Llama, whose names it has."""

from collections.abc import Mapping
from typing import Any

from tunewright_hf.models.native import DECODER, Native, config_of, drop, same


def native(config: Mapping[str, Any]) -> Native | None:
    """None for the mixtures of experts, and for models with scaled positions."""
    if config.get("architectures") != ["XverseForCausalLM"]:
        return None
    if any(config.get(key) for key in ("num_experts", "rope_scaling", "quantization_bit")):
        return None
    rules = (*same(*DECODER), *drop("**.rotary_emb.inv_freq"))
    return Native(config_of("llama", config), rules)
