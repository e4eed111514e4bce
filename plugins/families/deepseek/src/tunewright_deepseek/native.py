"""DeepSeek-MoE as Qwen2-MoE, which multiplies its shared experts by a gate that the original lacks:
a gate of zero halves them, and their last matrix is doubled."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from tunewright_hf.models.native import DECODER, Native, Rule, config_of, drop, rename, same

_MLP = "model.layers.*.mlp."
_EXPERTS = tuple(f"{_MLP}experts.*.{each}_proj.weight" for each in ("gate", "up", "down"))
_NOTES = (
    "the gate of the shared experts, which the original lacks, is not trained",
    "the original adds a loss for the balance of its experts in training, and here none is added",
)


def native(config: Mapping[str, Any]) -> Native | None:
    if config.get("architectures") != ["DeepseekForCausalLM"]:
        return None
    if not config.get("n_routed_experts") or not config.get("n_shared_experts"):
        return None
    if config.get("rope_scaling") or config.get("attention_bias"):
        return None
    if config.get("scoring_func", "softmax") != "softmax":
        return None
    first, every = config["first_k_dense_replace"], config.get("moe_layer_freq", 1)
    layers = range(config["num_hidden_layers"])
    fields = {
        "moe_intermediate_size": config["moe_intermediate_size"],
        "shared_expert_intermediate_size": config["moe_intermediate_size"]
        * config["n_shared_experts"],
        "num_experts": config["n_routed_experts"],
        "num_experts_per_tok": config["num_experts_per_tok"],
        "norm_topk_prob": config.get("norm_topk_prob", False),
        "mlp_only_layers": [layer for layer in layers if layer < first or layer % every],
        "decoder_sparse_step": 1,
        "qkv_bias": False,
        "router_aux_loss_coef": config.get("aux_loss_alpha", 0.001),
    }
    shared = {
        f"{_MLP}shared_experts.{each}_proj.weight": f"{_MLP}shared_expert.{each}_proj.weight"
        for each in ("gate", "up")
    }
    rules = (
        *same(*DECODER, *_EXPERTS, f"{_MLP}gate.weight"),
        *rename(shared),
        _halved(),
        *drop("**.rotary_emb.inv_freq"),
    )
    return Native(config_of("qwen2_moe", config, **fields), rules, _NOTES)


def _halved() -> Rule:
    """sigmoid(0) is exactly one half, and doubling is exact in floating point."""
    gate = f"{_MLP}shared_expert_gate.weight"

    def split(tensor: Tensor) -> Sequence[Tensor]:  # (H, I)
        return tensor * 2, tensor.new_zeros(1, len(tensor))

    def join(parts: Sequence[Tensor]) -> Tensor:
        return parts[0] / 2

    native = (f"{_MLP}shared_expert.down_proj.weight", gate)
    return Rule(f"{_MLP}shared_experts.down_proj.weight", native, split, join, constant=(gate,))
