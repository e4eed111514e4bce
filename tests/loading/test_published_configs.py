"""config.json as publishers wrote it, but for what no code reads: each becomes the native class, of
the model's size.

From mlc-ai/mlc-llm's model presets, zhangningboo/Qwen-7B and Tele-AI/TeleChat2, all on GitHub.
"""

from typing import Any

import pytest
import torch
import transformers

from tunewright_hf.models import native

_LLAMA = {"num_attention_heads": 32, "num_hidden_layers": 32, "hidden_size": 4096}
CONFIGS: dict[str, tuple[str, float, dict[str, Any]]] = {  # model → class, 10**9 parameters
    "Baichuan2-7B": (
        "llama",
        7.51,
        _LLAMA
        | {
            "architectures": ["BaichuanForCausalLM"],
            "tokenizer_class": "BaichuanTokenizer",
            "intermediate_size": 11008,
            "max_position_embeddings": 4096,
            "model_max_length": 4096,
            "model_type": "baichuan",
            "rms_norm_eps": 1e-06,
            "_from_model_config": True,
            "tie_word_embeddings": False,
            "vocab_size": 125696,
        },
    ),
    "ChatGLM3-6B": (
        "glm",
        6.24,
        {
            "architectures": ["ChatGLMModel"],
            "model_type": "chatglm",
            "add_bias_linear": False,
            "add_qkv_bias": True,
            "apply_query_key_layer_scaling": True,
            "apply_residual_connection_post_layernorm": False,
            "ffn_hidden_size": 13696,
            "fp32_residual_connection": False,
            "hidden_size": 4096,
            "kv_channels": 128,
            "layernorm_epsilon": 1e-05,
            "multi_query_attention": True,
            "multi_query_group_num": 2,
            "num_attention_heads": 32,
            "num_layers": 28,
            "eos_token_id": 2,
            "pad_token_id": 0,
            "original_rope": True,
            "padded_vocab_size": 65024,
            "post_layer_norm": True,
            "rmsnorm": True,
            "seq_length": 8192,
            "tie_word_embeddings": False,
        },
    ),
    "InternLM-7B": (
        "llama",
        7.32,
        _LLAMA
        | {
            "architectures": ["InternLMForCausalLM"],
            "bias": True,
            "intermediate_size": 11008,
            "max_position_embeddings": 2048,
            "model_type": "internlm",
            "rms_norm_eps": 1e-06,
            "tie_word_embeddings": False,
            "vocab_size": 103168,
        },
    ),
    "InternLM2.5-7B": (
        "llama",
        7.74,
        _LLAMA
        | {
            "architectures": ["InternLM2ForCausalLM"],
            "attn_implementation": "eager",
            "bias": False,
            "intermediate_size": 14336,
            "max_position_embeddings": 32768,
            "model_type": "internlm2",
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-05,
            "rope_scaling": {"type": "dynamic", "factor": 2.0},
            "rope_theta": 1000000,
            "tie_word_embeddings": False,
            "vocab_size": 92544,
            "pretraining_tp": 1,
        },
    ),
    "MiniCPM-2B": (
        "granite",
        2.72,
        {
            "architectures": ["MiniCPMForCausalLM"],
            "hidden_act": "silu",
            "hidden_size": 2304,
            "intermediate_size": 5760,
            "max_position_embeddings": 4096,
            "model_type": "minicpm",
            "num_attention_heads": 36,
            "num_hidden_layers": 40,
            "num_key_value_heads": 36,
            "rms_norm_eps": 1e-05,
            "tie_word_embeddings": True,
            "vocab_size": 122753,
            "scale_emb": 12,
            "dim_model_base": 256,
            "scale_depth": 1.4,
        },
    ),
    "Qwen-7B": (
        "qwen2",
        7.72,
        _LLAMA
        | {
            "architectures": ["QWenLMHeadModel"],
            "intermediate_size": 22016,
            "kv_channels": 128,
            "layer_norm_epsilon": 1e-06,
            "max_position_embeddings": 8192,
            "model_type": "qwen",
            "no_bias": True,
            "rotary_emb_base": 10000,
            "rotary_pct": 1.0,
            "seq_length": 8192,
            "tie_word_embeddings": False,
            "use_dynamic_ntk": True,
            "use_logn_attn": True,
            "vocab_size": 151936,
        },
    ),
    "DeepSeek-MoE-16B": (
        "qwen2_moe",
        16.38,
        {
            "architectures": ["DeepseekForCausalLM"],
            "attention_bias": False,
            "first_k_dense_replace": 1,
            "hidden_act": "silu",
            "hidden_size": 2048,
            "intermediate_size": 10944,
            "max_position_embeddings": 4096,
            "model_type": "deepseek",
            "moe_intermediate_size": 1408,
            "moe_layer_freq": 1,
            "n_routed_experts": 64,
            "n_shared_experts": 2,
            "norm_topk_prob": False,
            "num_attention_heads": 16,
            "num_experts_per_tok": 6,
            "num_hidden_layers": 28,
            "num_key_value_heads": 16,
            "rms_norm_eps": 1e-06,
            "rope_scaling": None,
            "rope_theta": 10000,
            "scoring_func": "softmax",
            "tie_word_embeddings": False,
            "vocab_size": 102400,
        },
    ),
    "TeleChat2-115B": (
        "llama",
        113.29,
        {
            "apply_residual_connection_post_layernorm": False,
            "architectures": ["TelechatForCausalLM"],
            "hidden_size": 8192,
            "layer_norm_epsilon": 1e-08,
            "model_type": "telechat",
            "n_head": 64,
            "num_key_value_heads": 8,
            "n_layer": 96,
            "vocab_size": 131072,
            "ffn_hidden_size": 40960,
            "flash_attn": True,
            "tie_word_embeddings": False,
            "training_seqlen": 8192,
            "base_seqlen": 8192,
            "seq_length": 8192,
        },
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_config_becomes_the_native_class_of_its_size(name: str) -> None:
    model_type, billions, config = CONFIGS[name]
    found = native.find(config)
    assert found is not None and found.config["model_type"] == model_type
    made = transformers.CONFIG_MAPPING[model_type].from_dict(found.config)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(made)
    assert model.num_parameters() / 1e9 == pytest.approx(billions, abs=0.01)
