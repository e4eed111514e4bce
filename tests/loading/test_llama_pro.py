"""LLaMA Pro: layers without effect are inserted, trained, saved and recognised."""

from pathlib import Path
from typing import Any

import pytest
import torch
from loading_setup import apply, edit_json, load, logits, train, trainable
from transformers import AutoModelForCausalLM

from tunewright import RecipeError
from tunewright.types import LoadedModel
from tunewright_conformance.doubles import FakeRun
from tunewright_hf.models.export import save_result
from tunewright_llama_pro import LlamaPro
from tunewright_llama_pro.expansion import grow_config

TWINS = ["qwen3", "qwen3_moe", "qwen2", "qwen2_moe", "llama3", "gpt2"]


def llama_pro(new_layers: int | None = None) -> LlamaPro:
    return LlamaPro(LlamaPro.Options(new_layers=new_layers), "llama_pro")


def four(run: FakeRun, twin: str = "qwen3", **request: Any) -> LoadedModel:
    """A model of four layers."""
    return load(run, twin=twin, options={"tiny_layers": 4}, **request)


def expanded(run: FakeRun, twin: str = "qwen3", new_layers: int | None = 2) -> LoadedModel:
    return apply(run, llama_pro(new_layers), four(run, twin))


@pytest.mark.parametrize("twin", TWINS)
def test_begins_as_the_model(run: FakeRun, twin: str) -> None:
    after = expanded(run, twin)
    assert after.model.config.num_hidden_layers == 6
    assert torch.equal(logits(after), logits(four(run, twin)))


@pytest.mark.parametrize(
    ("new_layers", "expected"), [(None, [4]), (1, [4]), (2, [2, 5]), (3, [1, 3, 6])]
)
def test_layers_are_inserted_evenly(
    run: FakeRun, new_layers: int | None, expected: list[int]
) -> None:
    loaded = expanded(run, new_layers=new_layers)
    assert loaded.model.config.expanded_layers == expected
    numbers = {int(name.split(".")[2]) for name in trainable(loaded)}
    assert numbers == set(expected)
    assert loaded.trained == trainable(loaded)
    places = [layer.self_attn.layer_idx for layer in loaded.model.model.layers]
    assert places == list(range(4 + len(expected)))
    for number in expected:
        ours, before = loaded.model.model.layers[number], loaded.model.model.layers[number - 1]
        assert torch.equal(ours.mlp.up_proj.weight, before.mlp.up_proj.weight)
        assert ours.mlp.up_proj.weight is not before.mlp.up_proj.weight


@pytest.mark.parametrize("twin", TWINS)
def test_the_result_loads_in_plain_transformers(run: FakeRun, twin: str, tmp_path: Path) -> None:
    loaded = expanded(run, twin)
    train(loaded)
    save_result(loaded, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(LoadedModel(theirs, None)), logits(loaded))
    assert not torch.equal(logits(loaded), logits(four(run, twin)))


def test_answers_with_a_cache(run: FakeRun) -> None:
    """Each layer has its own place in the cache."""
    loaded = expanded(run)
    train(loaded)
    ids = torch.tensor([[5, 6, 7]])
    settings = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    made = [loaded.model.generate(ids, use_cache=use, **settings) for use in (True, False)]
    assert torch.equal(*made)


def test_a_later_stage_does_not_expand_again(run: FakeRun, tmp_path: Path) -> None:
    first = expanded(run)
    train(first)
    save_result(first, tmp_path)
    for new_layers in (None, 2):
        later = apply(run, llama_pro(new_layers), load(run, str(tmp_path)))
        assert trainable(later) == trainable(first)
        assert torch.equal(logits(later), logits(first))
    with pytest.raises(RecipeError, match="new_layers: is 3, and the model was expanded by 2"):
        apply(run, llama_pro(3), load(run, str(tmp_path)))


def test_a_reward_model_has_its_head(run: FakeRun) -> None:
    loaded = apply(run, llama_pro(1), four(run, head="score"), head="score")
    numbers = {name.split(".")[2] for name in trainable(loaded) - {"score.weight"}}
    assert numbers == {"4"}
    assert "score.weight" in trainable(loaded)


def test_lists_of_the_config_grow(run: FakeRun) -> None:
    made = four(run, "qwen3_moe")
    made.model.config.layer_types = ["a", "b", "c", "d"]
    made.model.config.mlp_only_layers = [0, 1]
    grow_config(made.model.config, [1, 3], 4)
    assert made.model.config.layer_types == ["a", "b", "b", "c", "d", "d"]
    assert made.model.config.mlp_only_layers == [0, 1, 2]


@pytest.mark.parametrize("found", ["all", [7], [-1], [0.5]])
def test_a_config_with_other_layers_is_an_error(run: FakeRun, found: Any, tmp_path: Path) -> None:
    save_result(four(run), tmp_path)
    edit_json(tmp_path / "config.json", expanded_layers=found)
    with pytest.raises(RecipeError, match=r"expanded_layers of config\.json is"):
        apply(run, llama_pro(), load(run, str(tmp_path)))


def test_mistakes(run: FakeRun) -> None:
    with pytest.raises(RecipeError, match="new_layers: the model has 4 layers, not 5"):
        expanded(run, new_layers=5)
    quantized = four(run)
    quantized.quantized = frozenset({"model.layers.0.mlp.up_proj"})
    with pytest.raises(RecipeError, match="layers of a quantized model cannot be trained"):
        apply(run, llama_pro(), quantized)


def test_layers_whose_outputs_are_unknown_are_an_error(
    run: FakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunewright_llama_pro.expansion.OUTPUTS", frozenset({"o_proj"}))
    with pytest.raises(RecipeError, match="Qwen3ForCausalLM has layers that cannot be copied"):
        expanded(run)
