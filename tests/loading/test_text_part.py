"""Checkpoints that also see pictures load as models of text alone, where the family says that it
serves them."""

from pathlib import Path
from typing import Any

import pytest

from tunewright import registry
from tunewright_conformance.bench import load_model

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
LLAMA4 = (
    {
        "num_local_experts": 2,
        "intermediate_size_mlp": 64,
        "interleave_moe_layer_step": 2,
        "pad_token_id": 0,
    },
    {
        "hidden_size": 32,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "image_size": 56,
        "patch_size": 14,
        "vision_output_dim": 32,
        "projector_input_dim": 32,
        "projector_output_dim": 32,
    },
)
QWEN3_5 = (
    {
        "layer_types": ["linear_attention", "full_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
    },
    {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32},
)

GEMMA3 = (
    {"layer_types": ["sliding_attention", "full_attention"]},
    {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "image_size": 56,
        "patch_size": 14,
    },
)


@pytest.mark.parametrize(
    ("family", "model_type", "sizes"),
    [("llama", "llama4", LLAMA4), ("qwen", "qwen3_5", QWEN3_5), ("gemma", "gemma3", GEMMA3)],
)
def test_the_text_part_is_loaded_whole(
    family: str, model_type: str, sizes: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path
) -> None:
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

    entry = registry.find("family", family)
    tokenizer = load_model(entry, model_type, tmp_path, weights="none").tokenizer
    text = SIZES | sizes[0] | {"vocab_size": len(tokenizer)}
    config = CONFIG_MAPPING[model_type](text_config=text, vision_config=sizes[1])
    whole = AutoModelForImageTextToText.from_config(config)
    whole.save_pretrained(tmp_path / "whole")
    tokenizer.save_pretrained(tmp_path / "whole")
    loaded = load_model(entry, None, tmp_path, model=str(tmp_path / "whole"))
    declared = {point.name: point.value for point in registry.group("model_type")}
    assert declared[model_type] == family
    ids = torch.tensor([tokenizer.encode("The Elbe flows through Dresden.")])
    with torch.no_grad():
        assert torch.equal(loaded.model(input_ids=ids).logits, whole.eval()(input_ids=ids).logits)
