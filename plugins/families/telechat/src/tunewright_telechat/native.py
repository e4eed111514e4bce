"""TeleChat2 as Llama: other names, keys and values stored head by head, and biases of zero where
the native class has one and the original none."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from tunewright_hf.models.native import Native, Rule, config_of, drop, heads, rename

_LAYER, _NATIVE = "transformer.h.*.", "model.layers.*."
_NAMES = {
    "transformer.word_embeddings.weight": "model.embed_tokens.weight",
    "transformer.ln_f.weight": "model.norm.weight",
    "lm_head.weight": "lm_head.weight",
    f"{_LAYER}input_layernorm.weight": f"{_NATIVE}input_layernorm.weight",
    f"{_LAYER}post_attention_layernorm.weight": f"{_NATIVE}post_attention_layernorm.weight",
    f"{_LAYER}self_attention.dense.weight": f"{_NATIVE}self_attn.o_proj.weight",
    f"{_LAYER}self_attention.dense.bias": f"{_NATIVE}self_attn.o_proj.bias",
    f"{_LAYER}mlp.down_proj.weight": f"{_NATIVE}mlp.down_proj.weight",
    f"{_LAYER}mlp.down_proj.bias": f"{_NATIVE}mlp.down_proj.bias",
}
_WITHOUT_BIAS = {
    f"{_LAYER}self_attention.query.weight": f"{_NATIVE}self_attn.q_proj.weight",
    f"{_LAYER}mlp.gate_proj.weight": f"{_NATIVE}mlp.gate_proj.weight",
    f"{_LAYER}mlp.up_proj.weight": f"{_NATIVE}mlp.up_proj.weight",
}
_SECOND, _BOTH = ["TeleChat2ForCausalLM"], (["TelechatForCausalLM"], ["TeleChatForCausalLM"])
_OTHER_CODE = ("embed_layernorm", "apply_residual_connection_post_layernorm")
_NOTES = (
    "biases of zero, which the original lacks, are not trained",
    "the original rounds the cosines and sines of its positions to float16, and the native class "
    "does not",
    "beyond {} tokens the original stretches its positions further",
)


def native(config: Mapping[str, Any]) -> Native | None:
    """None for TeleChat 1, which has a name that the larger TeleChat2 have too; the code of the
    smaller ones does not read `logn`."""
    if (named := config.get("architectures")) not in (_SECOND, *_BOTH):
        return None
    other = _OTHER_CODE if named == _SECOND else (*_OTHER_CODE, "logn")
    if any(config.get(key) for key in other):
        return None
    count, trained = config["n_head"], config["training_seqlen"]
    groups, size = config.get("num_key_value_heads") or count, config["hidden_size"] // count
    stretch = 2 ** math.ceil(math.log2(trained / config["base_seqlen"]) + 1) - 1
    fields = {
        "intermediate_size": config["ffn_hidden_size"],
        "num_hidden_layers": config["n_layer"],
        "num_attention_heads": count,
        "num_key_value_heads": groups,
        "rms_norm_eps": config["layer_norm_epsilon"],
        "max_position_embeddings": trained,
        "rope_theta": 10000.0 * max(stretch, 1) ** (size / (size - 2)),
        "attention_bias": True,
        "mlp_bias": True,
    }
    keys_values = heads(
        f"{_LAYER}self_attention.key_value.weight",
        [f"{_NATIVE}self_attn.{each}_proj.weight" for each in "kv"],
        groups,
        [size, size],
    )
    rules = (
        *rename(_NAMES),
        *(_with_zeros(rule) for rule in (*rename(_WITHOUT_BIAS), keys_values)),
        *drop("**.rotary_emb.inv_freq"),
    )
    notes = (*_NOTES[:-1], _NOTES[-1].format(trained))
    return Native(config_of("llama", config, **fields), rules, notes)


def _with_zeros(rule: Rule) -> Rule:
    """The rule, with a bias of zero beside each weight."""
    biases = tuple(name.removesuffix("weight") + "bias" for name in rule.native)

    def split(tensor: Tensor) -> Sequence[Tensor]:
        weights = rule.split(tensor)
        return [*weights, *(each.new_zeros(len(each)) for each in weights)]

    def join(parts: Sequence[Tensor]) -> Tensor:
        return rule.join(parts[: len(biases)])

    return replace(rule, native=(*rule.native, *biases), split=split, join=join, constant=biases)
