"""Baichuan-7B and Baichuan2-7B as Llama: queries, keys and values in one matrix; Baichuan 2 also
normalises the rows of its head."""

from collections.abc import Mapping
from typing import Any

from tunewright_hf.models.native import (
    DECODER,
    Native,
    config_of,
    drop,
    normalized,
    same,
    split_rows,
)


def native(config: Mapping[str, Any]) -> Native | None:
    """None for the 13B models, which have ALiBi, and no `max_position_embeddings`."""
    first = config.get("architectures") == ["BaiChuanForCausalLM"]
    if not first and config.get("architectures") != ["BaichuanForCausalLM"]:
        return None
    if "max_position_embeddings" not in config:
        return None
    packed = [f"model.layers.*.self_attn.{each}_proj.weight" for each in "qkv"]
    others = [name for name in DECODER if name not in (*packed, "lm_head.weight")]
    rules = (
        split_rows("model.layers.*.self_attn.W_pack.weight", packed, [config["hidden_size"]] * 3),
        *same(*others),
        *(same("lm_head.weight") if first else [normalized("lm_head.weight")]),
        *drop("**.rotary_emb.inv_freq"),
    )
    return Native(config_of("llama", config), rules)
