"""ChatGLM3 and the first code of GLM-4 as GLM: other names, and projections in one matrix."""

from collections.abc import Mapping
from typing import Any

from tunewright_hf.models.native import Native, config_of, drop, rename, split_rows

_LAYER, _NATIVE = "transformer.encoder.layers.*.", "model.layers.*."
_NAMES = {
    "transformer.embedding.word_embeddings.weight": "model.embed_tokens.weight",
    "transformer.encoder.final_layernorm.weight": "model.norm.weight",
    "transformer.output_layer.weight": "lm_head.weight",
    f"{_LAYER}input_layernorm.weight": f"{_NATIVE}input_layernorm.weight",
    f"{_LAYER}post_attention_layernorm.weight": f"{_NATIVE}post_attention_layernorm.weight",
    f"{_LAYER}self_attention.dense.weight": f"{_NATIVE}self_attn.o_proj.weight",
    f"{_LAYER}mlp.dense_h_to_4h.weight": f"{_NATIVE}mlp.gate_up_proj.weight",
    f"{_LAYER}mlp.dense_4h_to_h.weight": f"{_NATIVE}mlp.down_proj.weight",
}
_EXPECTED = {  # of other values the code has other branches: ChatGLM 1 and 2, GLM-4V, CogAgent
    "rmsnorm": True,
    "post_layer_norm": True,
    "add_bias_linear": False,
    "apply_residual_connection_post_layernorm": False,
    "original_rope": True,
    "vision_config": None,
    "quantization_bit": 0,
    "pre_seq_len": None,
}


def native(config: Mapping[str, Any]) -> Native | None:
    if config.get("architectures") not in (["ChatGLMModel"], ["ChatGLMForConditionalGeneration"]):
        return None
    if "padded_vocab_size" not in config or any(
        config.get(key, value) != value for key, value in _EXPECTED.items()
    ):
        return None
    count, size = config["num_attention_heads"], config["kv_channels"]
    groups = config["multi_query_group_num"] if config.get("multi_query_attention") else count
    rows = [count * size, groups * size, groups * size]
    bias = bool(config.get("add_qkv_bias"))
    packed = [
        split_rows(
            f"{_LAYER}self_attention.query_key_value.{kind}",
            [f"{_NATIVE}self_attn.{each}_proj.{kind}" for each in "qkv"],
            rows,
        )
        for kind in (("weight", "bias") if bias else ("weight",))
    ]
    fields = {
        "vocab_size": config["padded_vocab_size"],
        "intermediate_size": config["ffn_hidden_size"],
        "num_hidden_layers": config["num_layers"],
        "num_key_value_heads": groups,
        "head_dim": size,
        "rms_norm_eps": config["layernorm_epsilon"],
        "attention_bias": bias,
        "max_position_embeddings": config["seq_length"],
        "pad_token_id": config.get("pad_token_id"),  # glm's own default is beyond ChatGLM3's
        "tie_word_embeddings": False,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0 * config.get("rope_ratio", 1),
            "partial_rotary_factor": 0.5,
        },
    }
    rules = (*rename(_NAMES), *packed, *drop("**.rotary_pos_emb.inv_freq"))
    return Native(config_of("glm", config, **fields), rules)
