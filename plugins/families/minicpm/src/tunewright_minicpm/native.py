"""MiniCPM-1B and 2B as Granite: Llama with four scaling factors."""

import math
from collections.abc import Mapping
from typing import Any

from tunewright_hf.models.native import DECODER, Native, config_of, drop, same


def native(config: Mapping[str, Any]) -> Native | None:
    """None for MiniCPM 4, which scales its positions by tables (longrope) or attends sparsely, and
    for the mixtures of experts."""
    if config.get("architectures") != ["MiniCPMForCausalLM"]:
        return None
    if any(config.get(key) for key in ("rope_scaling", "sparse_config", "num_experts")):
        return None
    count = config["num_attention_heads"]
    fields = {
        "num_key_value_heads": config.get("num_key_value_heads") or count,
        "tie_word_embeddings": config.get("tie_word_embeddings", True),
        "embedding_multiplier": float(config["scale_emb"]),
        "residual_multiplier": config["scale_depth"] / math.sqrt(config["num_hidden_layers"]),
        "attention_multiplier": (config["hidden_size"] // count) ** -0.5,
        "logits_scaling": config["hidden_size"] / config["dim_model_base"],
    }
    rules = (*same(*DECODER), *drop("**.rotary_emb.inv_freq"))
    return Native(config_of("granite", config, **fields), rules)
