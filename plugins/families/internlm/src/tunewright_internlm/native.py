"""InternLM as Llama, whose names it has; InternLM2 and InternLM2.5, whose projections are stored
group by group under other names."""

from collections.abc import Mapping
from typing import Any

from tunewright_hf.models.native import DECODER, Native, config_of, drop, heads, rename, same

_NAMES = {
    "model.tok_embeddings.weight": "model.embed_tokens.weight",
    "model.norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
    "model.layers.*.attention_norm.weight": "model.layers.*.input_layernorm.weight",
    "model.layers.*.ffn_norm.weight": "model.layers.*.post_attention_layernorm.weight",
    "model.layers.*.feed_forward.w1.weight": "model.layers.*.mlp.gate_proj.weight",
    "model.layers.*.feed_forward.w3.weight": "model.layers.*.mlp.up_proj.weight",
    "model.layers.*.feed_forward.w2.weight": "model.layers.*.mlp.down_proj.weight",
}


def native(config: Mapping[str, Any]) -> Native | None:
    if config.get("architectures") == ["InternLMForCausalLM"]:
        return _first(config)
    return _second(config) if config.get("architectures") == ["InternLM2ForCausalLM"] else None


def _first(config: Mapping[str, Any]) -> Native:
    bias, rotary = config.get("bias", True), config.get("rotary") or {}
    scaled = rotary.get("type") == "dynamic"
    fields = {
        "attention_bias": bias,
        "rope_theta": float(rotary.get("base", 10000)),
        "rope_scaling": {"type": "dynamic", "factor": rotary.get("scaling_factor", 1.0)}
        if scaled
        else None,
    }
    biases = [f"model.layers.*.self_attn.{each}_proj.bias" for each in "qkvo"] if bias else []
    rules = (*same(*DECODER, *biases), *drop("**.rotary_emb.inv_freq"))
    return Native(config_of("llama", config, **fields), rules)


def _second(config: Mapping[str, Any]) -> Native:
    groups = config.get("num_key_value_heads") or config["num_attention_heads"]
    size = config["hidden_size"] // config["num_attention_heads"]
    rows = [config["num_attention_heads"] // groups * size, size, size]
    rules = [*rename(_NAMES), *drop("**.rotary_emb.inv_freq")]
    for kind in ("weight", "bias") if config.get("bias", True) else ("weight",):
        parts = [f"model.layers.*.self_attn.{each}_proj.{kind}" for each in "qkv"]
        rules.append(heads(f"model.layers.*.attention.wqkv.{kind}", parts, groups, rows))
        output = f"model.layers.*.attention.wo.{kind}"
        rules += rename({output: f"model.layers.*.self_attn.o_proj.{kind}"})
    fields = {
        "num_key_value_heads": groups,
        "attention_bias": config.get("bias", True),
    }
    return Native(config_of("llama", config, **fields), tuple(rules))
