"""Experts spread over two ranks: the training of one process."""

import json

import pytest
import torch
from accelerators_setup import asked, go, on_two_processes
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3MoeConfig

from tunewright import RecipeError, check
from tunewright.run import Run
from tunewright.source import RecipeProblems
from tunewright_expert_parallel.limits import check_config
from tunewright_hf.models.while_loading import check_shared_matrix

FAMILY = {"name": "qwen", "tiny_variant": "qwen3_moe", "device": "cpu"}


def checkpoint(tmp_path, rows=0):
    """A checkpoint made here. rows: of the one matrix that is embeddings and head; 0: two
    matrices."""
    loaded = Run(check.resolve(asked(tmp_path / "made", family=FAMILY))).load(trainable=False)
    if rows:
        loaded.model.config.tie_word_embeddings = True
        loaded.model.lm_head.weight = loaded.model.get_input_embeddings().weight
        loaded.model.resize_token_embeddings(rows)
    loaded.model.save_pretrained(tmp_path / "checkpoint")
    loaded.tokenizer.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.mark.slow
@pytest.mark.parametrize("rows", [0, pytest.param(1012, marks=pytest.mark.long)])
def test_two_ranks_train_as_one(tmp_path, rows):
    sections = {
        "model": str(checkpoint(tmp_path, rows)),
        "family": {"name": "qwen", "device": "cpu"},
        "template": "chatml",
        "eval_data": {"held_out": asked(tmp_path / "rows")["data"]},
        "training": {
            "eval_steps": 2,
            "save_steps": 2,
            "gradient_accumulation_steps": 2,
            "per_device_train_batch_size": 2,
        },
    }
    one = go(tmp_path / "one", **sections)
    sections["training"]["per_device_train_batch_size"] = 1
    two = on_two_processes(
        "accelerators_worker.py",
        tmp_path / "two",
        json.dumps(["expert_parallel"]),
        json.dumps(sections),
    )
    assert len(two) == len(one.metrics) > 4
    for mine, right in zip(two, one.metrics, strict=True):
        assert mine == pytest.approx(right, rel=1e-5)
    whole, found = (weights(tmp_path / name) for name in ("one", "two"))
    assert whole.keys() == found.keys()
    for name, tensor in whole.items():  # Adam enlarges what rounding leaves
        assert torch.allclose(found[name], tensor, atol=1e-4), name
    config = "run/model/config.json"
    assert (tmp_path / "two" / config).read_text() == (tmp_path / "one" / config).read_text()


def weights(folder):
    files = sorted((folder / "run/model").glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


TWO = {"launch": {"processes": 2}}


@pytest.mark.parametrize(
    ("accelerators", "more", "message"),
    [
        ([], {}, "expert_parallel needs several processes, and there is one"),
        ([], TWO, "model: is tiny, and expert_parallel shards checkpoints"),
        (
            [],
            {"adapter": "lora", "model": "org/moe", **TWO},
            "shards the model's own weights, and adapter lora adds others",
        ),
        (
            [],
            {"adapter": {"name": "llama_pro", "new_layers": 1}, "model": "org/moe", **TWO},
            "and llama_pro copies whole ones",
        ),
        (["fsdp"], {"model": "org/moe", **TWO}, "shards all weights, and so does fsdp"),
    ],
)
def test_what_cannot_work_is_refused_by_the_check(
    tmp_path, monkeypatch, accelerators, more, message
):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(RecipeProblems, match=message):
        check.resolve(asked(tmp_path, "expert_parallel", *accelerators, **more))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LlamaConfig(), "transformers has no plan of experts for llama"),
        (Qwen3MoeConfig(num_experts=9), "9 experts cannot be spread over 2 ranks"),
    ],
)
def test_models_that_cannot_be_spread_are_refused(config, message):
    with pytest.raises(RecipeError, match=message):
        check_config(config, 2)


@pytest.mark.parametrize(
    ("tied", "rows", "refused"), [(1, 10, True), (1, 12, False), (0, 10, False)]
)
def test_a_shared_matrix_has_even_shards(tied, rows, refused):
    """Its shards would be padded apart, and one of them would never be updated."""
    sizes = {"hidden_size": 4, "num_attention_heads": 1, "intermediate_size": 4}
    config = LlamaConfig(
        **sizes, vocab_size=rows, num_hidden_layers=1, tie_word_embeddings=bool(tied)
    )
    model = LlamaForCausalLM(config)
    if refused:
        with pytest.raises(RecipeError, match="10 rows of the matrix that is embeddings and head"):
            check_shared_matrix(model, 4)
    else:
        check_shared_matrix(model, 4)
