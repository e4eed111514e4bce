"""MiMo-7B as Qwen2: the same, without the layers that predict further tokens."""

from collections.abc import Mapping
from typing import Any

from tunewright_hf.models.native import DECODER, Native, drop, same

_OWN = ("architectures", "auto_map", "model_type", "num_nextn_predict_layers", "tokenizer_class")
_LEFT_OUT = "the layers that predict further tokens (mtp_layers) are left out"


def native(config: Mapping[str, Any]) -> Native | None:
    if config.get("architectures") != ["MiMoForCausalLM"]:
        return None
    biases = [f"model.layers.*.self_attn.{each}_proj.bias" for each in "qkv"]
    kept = {key: value for key, value in config.items() if key not in _OWN}
    rules = (*same(*DECODER, *biases), *drop("model.mtp_layers.**"))
    return Native({"model_type": "qwen2"} | kept, rules, (_LEFT_OUT,))
