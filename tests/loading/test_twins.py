"""Tiny twins and the checkpoints that are made of them: load, run, save, load again."""

from pathlib import Path
from typing import Any

import pytest
import torch
from loading_setup import load, logits, said, save, trainable

from tunewright import RecipeError, RunError, registry
from tunewright.types import LoadedModel, LoadRequest
from tunewright_conformance.doubles import FakeRun

TEMPLATES = {
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3",
    "qwen2": "qwen",
    "qwen2_moe": "qwen",
    "llama3": "llama3",
    "llama2": "llama2",
}


@pytest.mark.parametrize("twin", TEMPLATES)
def test_twin(run: FakeRun, tmp_path: Path, twin: str) -> None:
    loaded = load(run, twin=twin)
    assert loaded.template == TEMPLATES[twin]
    assert loaded.tokenizer.pad_token_id not in (None, loaded.tokenizer.eos_token_id)
    assert loaded.model.config.pad_token_id == loaded.tokenizer.pad_token_id
    assert loaded.model.get_input_embeddings().weight.shape[0] == len(loaded.tokenizer)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    ids = torch.tensor([loaded.tokenizer("What is your name?").input_ids])
    loaded.model(input_ids=ids, labels=ids).loss.backward()
    assert all(
        torch.isfinite(p.grad).all() for p in loaded.model.parameters() if p.grad is not None
    )
    again = load(run, str(save(loaded, tmp_path)), twin=twin)
    assert torch.allclose(logits(again), logits(loaded), atol=1e-6)
    text = "<s>Hi<|im_end|> there, 1234 caf\u0065\u0301\n\n  def"
    assert again.tokenizer(text).input_ids == loaded.tokenizer(text).input_ids


@pytest.mark.parametrize("head", ["score", "value"])
def test_heads_that_judge(run: FakeRun, tmp_path: Path, head: str) -> None:
    assert logits(load(run, head=head)).shape == (1, 1)
    folder = str(save(load(run), tmp_path / "a"))
    before = torch.get_rng_state()
    one, same, other = (load(run, folder, head=head, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.model.score.weight, same.model.score.weight)
    assert not torch.equal(one.model.score.weight, other.model.score.weight)
    again = load(run, str(save(one, tmp_path / "b")), head=head, seed=2)
    assert torch.equal(again.model.score.weight, one.model.score.weight)


def test_seed_makes_the_weights(run: FakeRun) -> None:
    before = torch.get_rng_state()
    one, same, other = (load(run, seed=seed).model.model.norm for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.weight, same.weight)
    one, same, other = (load(run, seed=seed).model.get_input_embeddings() for seed in (1, 1, 2))
    assert torch.equal(one.weight, same.weight)
    assert not torch.equal(one.weight, other.weight)


def test_sizes(run: FakeRun) -> None:
    config = load(run, options={"tiny_hidden_size": 32, "tiny_layers": 3}).model.config
    assert (config.hidden_size, config.num_hidden_layers) == (32, 3)


def test_a_size_that_an_architecture_cannot_have(run: FakeRun) -> None:
    family: Any = registry.load(registry.find("family", "granite"))
    options = family.Options(tiny_variant="granite4", tiny_hidden_size=32)
    with pytest.raises(RunError, match="no twin has 32: ") as caught:
        family(options).load_model(run, LoadRequest("tiny"))
    assert caught.value.place == "family.tiny_hidden_size"


def test_unknown_twin(run: FakeRun) -> None:
    with pytest.raises(RecipeError, match="no tiny twin 'qwen33'") as caught:
        load(run, options={"tiny_variant": "qwen33"})
    assert "did you mean 'qwen3'" in caught.value.hint


def test_tokenizer_alone(run: FakeRun, tmp_path: Path) -> None:
    assert load(run, weights="none").model is None
    folder = save(load(run), tmp_path)
    (folder / "model.safetensors").unlink()
    assert load(run, str(folder), weights="none").template == "qwen3"


def test_frozen(run: FakeRun, tmp_path: Path) -> None:
    assert trainable(load(run))
    assert not trainable(load(run, trainable=False))
    assert not trainable(load(run, str(save(load(run), tmp_path)), trainable=False))


def test_another_loader(run: FakeRun) -> None:
    made = load(run, twin="qwen2")
    made.template = None

    def loader(request: LoadRequest) -> LoadedModel:
        assert request.dtype == "auto"
        return LoadedModel(made.model, made.tokenizer, adapter_exclude=("own",))

    loaded = load(run, "somewhere", loader=loader)
    assert loaded.model is made.model
    assert loaded.template == "qwen"
    assert {"own", "lm_head"} <= set(loaded.adapter_exclude)


# ---- checkpoints ---------------------------------------------------------------------------------


def test_dtype(run: FakeRun, tmp_path: Path) -> None:
    half = load(run, dtype="bfloat16")
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.bfloat16}
    folder = str(save(half, tmp_path))
    assert load(run, folder).model.dtype == torch.bfloat16
    assert load(run, folder, options={"dtype": "float32"}).model.dtype == torch.float32
    assert (
        load(run, folder, options={"dtype": "float32"}, dtype="float16").model.dtype
        == torch.float16
    )


def test_attention(run: FakeRun, tmp_path: Path) -> None:
    folder = str(save(load(run), tmp_path))
    eager = load(run, folder, options={"attention": "eager"})
    assert eager.model.config._attn_implementation == "eager"
    assert torch.allclose(logits(eager), logits(load(run, folder)), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "twin"), [("bloom", "bloom"), ("gemma", "gemma2"), ("gpt_oss", "gpt_oss")]
)
def test_attention_that_a_class_refuses(run: FakeRun, tmp_path: Path, name: str, twin: str) -> None:
    family: Any = registry.load(registry.find("family", name))

    def attempt(model: str, attention: str | None) -> LoadedModel:
        options = family.Options(tiny_variant=twin, device="cpu", attention=attention)
        loaded: LoadedModel = family(options).load_model(run, LoadRequest(model))
        return loaded

    folder = str(save(attempt("tiny", None), tmp_path))
    assert attempt(folder, None).model.config._attn_implementation == "eager"
    for model in ("tiny", folder):
        with pytest.raises(
            RecipeError, match=r"attention sdpa cannot be used: .* does not support"
        ) as caught:
            attempt(model, "sdpa")
        assert "leave out family.attention" in caught.value.hint


def test_model_arguments(run: FakeRun, tmp_path: Path) -> None:
    folder = str(save(load(run), tmp_path))
    loaded = load(run, folder, model_arguments={"attn_implementation": "eager"})
    assert loaded.model.config._attn_implementation == "eager"


def test_missing_device(run: FakeRun) -> None:
    with pytest.raises(RunError, match="there is no device cuda:99"):
        load(run, options={"device": "cuda:99"})


def test_missing_pad_token(run: FakeRun, tmp_path: Path) -> None:
    loaded = load(run, twin="llama3")
    loaded.tokenizer.pad_token = None
    folder = save(loaded, tmp_path)
    again = load(run, str(folder), twin="llama3")
    assert again.tokenizer.pad_token == "<|finetune_right_pad_id|>"
    assert "<|finetune_right_pad_id|> pads" in said(run)
    again = load(run, str(folder), twin="qwen2")  # a family that names no pad tokens
    assert again.tokenizer.pad_token == again.tokenizer.eos_token == "<|eot_id|>"
    assert again.model.generation_config.pad_token_id == again.tokenizer.pad_token_id


def test_base_model_keeps_the_name_of_the_recipe(run: FakeRun, tmp_path: Path) -> None:
    folder = str(save(load(run), tmp_path))
    assert load(run, folder).model.name_or_path == folder
    assert load(run).model.name_or_path == "tiny"


def test_missing_weights_are_not_made_up(run: FakeRun, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = save(load(run), tmp_path) / "model.safetensors"
    weights = load_file(path)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(
        RunError, match=r"has no weights for model\.layers\.1\.mlp\.up_proj\.weight"
    ):
        load(run, str(tmp_path))


def test_sharded(run: FakeRun, tmp_path: Path) -> None:
    loaded = load(run)
    loaded.model.save_pretrained(tmp_path, max_shard_size="200KB")
    loaded.tokenizer.save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert torch.allclose(logits(load(run, str(tmp_path))), logits(loaded), atol=1e-6)


@pytest.mark.parametrize(
    ("remove", "problem"),
    [
        ("model.safetensors", "holds no model.safetensors"),
        ("config.json", "holds no config.json"),
        ("tokenizer.json", "holds no tokenizer"),
    ],
)
def test_incomplete(run: FakeRun, tmp_path: Path, remove: str, problem: str) -> None:
    (save(load(run), tmp_path) / remove).unlink()
    with pytest.raises(RunError, match=problem):
        load(run, str(tmp_path))


def test_a_file_is_no_checkpoint(run: FakeRun, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(RunError, match="is not a folder"):
        load(run, str(tmp_path / "model.safetensors"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_the_gpu(run: FakeRun, tmp_path: Path) -> None:
    cpu = load(run)
    folder = str(save(cpu, tmp_path))
    loaded = load(run, folder, options={"device": "auto"})
    assert loaded.model.device.type == "cuda"
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]], device="cuda")
    assert torch.allclose(loaded.model(input_ids=ids).logits.cpu(), logits(cpu), atol=1e-3)
    twin = load(run, options={"device": "auto"}).model
    assert torch.equal(
        twin.get_input_embeddings().weight.cpu(), cpu.model.get_input_embeddings().weight
    )
