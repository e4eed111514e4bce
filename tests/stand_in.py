"""A checkpoint with code of its own, as it was written for transformers 4, and the native model of
the same weights: the code, in stand_in_code, computes what Llama does."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

CODE = Path(__file__).parent / "stand_in_code"
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
_NAMES = {
    "mlp.gate_proj.": "w1.",
    "mlp.up_proj.": "w3.",
    "mlp.down_proj.": "w2.",
    "embed_tokens": "tok_embeddings",
    "lm_head": "output_layer",
}
AUTO_MAP = {
    "AutoConfig": "configuration_stand_in.StandInConfig",
    "AutoModelForCausalLM": "modeling_stand_in.StandInForCausalLM",
}


def write_stand_in(
    folder: Path, tokenizer: Any, *, model_type: str = "stand_in", **config: Any
) -> LlamaForCausalLM:
    """Write code, config, random weights and tokenizer; returns the native model.

    config: of the checkpoint, such as rope_scaling as transformers 4 spells it.
    """
    scaling = config.get("rope_scaling")
    rope: dict[str, Any] = {"rope_theta": 10000.0, "rope_type": "default"}
    if scaling:
        rope |= {"rope_type": scaling["type"], "factor": scaling["factor"]}
    tied = config.get("tie_word_embeddings", False)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        native = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer), rope_parameters=rope, tie_word_embeddings=tied, **SIZES
            )
        ).eval()
        for parameter in native.parameters():
            torch.nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.1)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(_renamed(native.state_dict(), config), folder / "model.safetensors")
    written = {
        "model_type": model_type,
        "architectures": ["StandInForCausalLM"],
        "auto_map": AUTO_MAP,
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "torch_dtype": "float32",
        "transformers_version": "4.36.0",
    }
    (folder / "config.json").write_text(json.dumps(written | SIZES | config))
    for file in CODE.glob("*.py"):
        shutil.copy(file, folder)
    configuration = folder / "configuration_stand_in.py"
    configuration.write_text(configuration.read_text().replace('"stand_in"', f'"{model_type}"'))
    tokenizer.save_pretrained(folder)
    return native


def _renamed(weights: dict[str, torch.Tensor], config: dict[str, Any]) -> dict[str, torch.Tensor]:
    made = {}
    for name, tensor in weights.items():
        for own, other in _NAMES.items():
            name = name.replace(own, other)
        made[name] = tensor.clone()
    if config.get("tie_word_embeddings"):
        del made["output_layer.weight"]
    for layer in range(SIZES["num_hidden_layers"]):
        at = f"model.layers.{layer}.self_attn."
        made[f"{at}W_pack.weight"] = torch.cat(
            [made.pop(f"{at}{each}_proj.weight") for each in "qkv"]
        )
    further = [name for name in made if name.startswith("model.layers.0.")]
    for layer in range(config.get("num_nextn_predict_layers", 0)):
        for name in further:
            made[name.replace("model.layers.0.", f"mtp_layers.{layer}.")] = made[name].clone()
    return made
