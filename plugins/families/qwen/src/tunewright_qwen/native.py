"""Qwen 1 as Qwen2: other names, projections in one matrix, and a gate that is called w2."""

from collections.abc import Mapping
from typing import Any

from tunewright_hf.models.native import Native, config_of, drop, rename, split_rows

_LAYER, _NATIVE = "transformer.h.*.", "model.layers.*."
_NAMES = {
    "transformer.wte.weight": "model.embed_tokens.weight",
    "transformer.ln_f.weight": "model.norm.weight",
    "lm_head.weight": "lm_head.weight",
    f"{_LAYER}ln_1.weight": f"{_NATIVE}input_layernorm.weight",
    f"{_LAYER}ln_2.weight": f"{_NATIVE}post_attention_layernorm.weight",
    f"{_LAYER}attn.c_proj.weight": f"{_NATIVE}self_attn.o_proj.weight",
    f"{_LAYER}mlp.w2.weight": f"{_NATIVE}mlp.gate_proj.weight",
    f"{_LAYER}mlp.w1.weight": f"{_NATIVE}mlp.up_proj.weight",
    f"{_LAYER}mlp.c_proj.weight": f"{_NATIVE}mlp.down_proj.weight",
}
_LONGER = (
    "beyond {} tokens the original stretches its positions (dynamic NTK) and scales its queries "
    "(log-n attention), which the native class does not"
)


def native(config: Mapping[str, Any]) -> Native | None:
    if config.get("architectures") != ["QWenLMHeadModel"] or "visual" in config:
        return None
    hidden, length = config["hidden_size"], config["seq_length"]
    if config.get("rotary_pct", 1.0) != 1 or not config.get("no_bias", True):
        return None
    if config.get("kv_channels", 128) * config["num_attention_heads"] != hidden:
        return None
    packed = [
        split_rows(
            f"{_LAYER}attn.c_attn.{kind}",
            [f"{_NATIVE}self_attn.{each}_proj.{kind}" for each in "qkv"],
            [hidden] * 3,
        )
        for kind in ("weight", "bias")
    ]
    fields = {
        "intermediate_size": config["intermediate_size"] // 2,
        "num_key_value_heads": config["num_attention_heads"],
        "rms_norm_eps": config["layer_norm_epsilon"],
        "max_position_embeddings": length,
        "rope_theta": float(config.get("rotary_emb_base", 10000)),
    }
    rules = (*rename(_NAMES), *packed, *drop("**.rotary_emb.inv_freq"))
    return Native(config_of("qwen2", config, **fields), rules, (_LONGER.format(length),))
