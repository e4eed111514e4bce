"""Scaled rotary positions: in the model, in what is saved, and refused where there are none."""

import json
import re

import pytest
import torch
from accelerators_setup import asked, assert_same_weights, go
from transformers import AutoConfig, AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig

from tunewright import RecipeError, check
from tunewright.run import Run, open_run, train
from tunewright.source import RecipeProblems
from tunewright_rope_scaling import RopeScaling
from tunewright_rope_scaling.scaling import Scaling

LONGROPE = {"short_factor": [1.0, 1.0, 1.0, 1.0], "long_factor": [1.0, 2.0, 4.0, 8.0]}
METHODS = {
    "linear": {},
    "dynamic": {},
    "yarn": {"beta_fast": 16},
    "llama3": {"high_freq_factor": 8},
    "longrope": LONGROPE,
}


def scaled(config, longest=8000, **options):
    scaling = Scaling(RopeScaling.Options(**options), longest)
    scaling.edit(config)
    return scaling


def load(folder, accelerator, **more):
    """The model as a run loads it."""
    more = {"training": {"max_length": 8000}, **more}
    return Run(check.resolve(asked(folder, accelerator, **more))).load(trainable=False)


def logits(model, positions):
    with torch.no_grad():
        ids = torch.arange(5, 17)[None]
        # without a mask, positions with gaps would be those of packed examples
        mask = torch.ones_like(ids)
        return model(
            input_ids=ids, attention_mask=mask, position_ids=positions[None], use_cache=False
        ).logits


def test_linear_divides_positions(tmp_path):
    plain = load(tmp_path / "a", {"name": "neftune"}, training={"max_length": 64}).model
    found = load(tmp_path / "b", {"name": "rope_scaling", "rope_type": "linear", "factor": 4}).model
    places = torch.arange(12)
    assert torch.allclose(logits(found, 4 * places), logits(plain, places), atol=1e-5)
    assert not torch.allclose(logits(found, places), logits(plain, places), atol=1e-3)


def test_llama3_keeps_high_frequencies_and_divides_low_ones(tmp_path):
    plain = load(tmp_path / "a", {"name": "neftune"}, training={"max_length": 64}).model
    found = load(tmp_path / "b", {"name": "rope_scaling", "rope_type": "llama3", "factor": 4}).model
    ratio = found.model.rotary_emb.inv_freq / plain.model.rotary_emb.inv_freq
    assert ratio[0] == 1
    assert ratio[-1] == pytest.approx(1 / 4, rel=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_the_result_carries_it_and_loads_in_transformers(tmp_path, method):
    options = {"name": "rope_scaling", "rope_type": method, "factor": 2, **METHODS[method]}
    done = go(tmp_path, options, training={"max_length": 8000, "max_steps": 2})
    config = AutoConfig.from_pretrained(tmp_path / "run/model")
    rope = config.rope_parameters
    assert (rope["rope_type"], rope["factor"]) == (method, 2.0)
    assert rope["rope_theta"] == LlamaConfig().rope_parameters["rope_theta"]
    # transformers' dynamic scaling begins beyond max_position_embeddings
    assert config.max_position_embeddings == (4096 if method == "dynamic" else 8192)
    written = json.loads((tmp_path / "run/model/tokenizer_config.json").read_text("utf-8"))
    assert written["model_max_length"] >= 8192
    assert any(f"{method}, 4096 × 2 = 8192" in notice for notice in done.notices)
    run = open_run(tmp_path / "run")
    loaded, places = run.load_policy().model, torch.arange(12)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "run/model")
    assert torch.equal(logits(loaded.float(), places), logits(again.float(), places))
    for one, other in zip(loaded.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_second_stage_continues_from_the_scaled_model(tmp_path):
    stages = [{"name": "sft"}, {"name": "sft", "training": {"max_length": 9000}}]
    recipe = asked(tmp_path, "rope_scaling", training={"max_steps": 2})
    del recipe["stage"]
    result = train(check.resolve({**recipe, "stages": stages}))
    config = AutoConfig.from_pretrained(result.path)
    assert config.rope_parameters["factor"] == 3.0  # of the longest stage, once
    assert config.max_position_embeddings == 3 * 4096


def test_an_adapter_is_trained_on_the_scaled_model_and_loads_with_it(tmp_path):
    settings = {"adapter": {"name": "lora", "rank": 4}, "training": {"max_length": 8000}}
    go(tmp_path, "rope_scaling", **settings)
    assert open_run(tmp_path / "run").load_policy().model.config.rope_parameters["factor"] == 2.0


def test_a_run_resumes_bit_for_bit(tmp_path):
    settings = {"training": {"max_length": 8000, "save_steps": 4}}
    whole = go(tmp_path / "whole", "rope_scaling", **settings)
    go(tmp_path / "parts", "rope_scaling", stop_at=2, **settings)
    resumed = go(tmp_path / "parts", "rope_scaling", resume=True, **settings)
    assert_same_weights(whole, resumed)


def test_a_checkpoint_is_scaled_like_a_twin(tmp_path):
    go(tmp_path / "a", training={"max_steps": 1})
    model = str(tmp_path / "a/run/model")
    loaded = load(tmp_path / "b", "rope_scaling", model=model, template="llama3")
    assert loaded.model.config.rope_parameters["rope_type"] == "yarn"
    again = load(tmp_path / "c", "rope_scaling", model=model, template="llama3")
    assert again.model.config.max_position_embeddings == 8192


def test_a_model_scaled_already_is_left_or_refused(tmp_path):
    config = LlamaConfig(max_position_embeddings=4096)
    scaled(config, rope_type="yarn", factor=2)
    before = config.to_dict()
    assert scaled(config, rope_type="yarn").positions == 8192
    assert config.to_dict() == before
    with pytest.raises(RecipeError, match="yarn already, factor 2"):
        scaled(config, rope_type="linear")


def test_only_full_attention_is_scaled_where_layers_differ():
    config = Gemma3TextConfig(max_position_embeddings=4096)
    before = config.to_dict()["rope_parameters"]
    scaled(config, rope_type="linear", factor=2)
    assert config.rope_parameters["full_attention"]["factor"] == 2
    assert config.rope_parameters["sliding_attention"] == before["sliding_attention"]
    assert (
        config.rope_parameters["full_attention"]["rope_theta"]
        == (before["full_attention"]["rope_theta"])
    )


@pytest.mark.parametrize(
    ("options", "longest", "message"),
    [
        ({}, 2048, "max_length 2048 fits the model's 4096 positions"),
        ({"factor": 2}, 9000, r"4096 positions × 2 are fewer than training.max_length 9000 .*3"),
        (
            {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]},
            8000,
            "short_factor has 1 numbers, and heads of this model have 64 frequencies",
        ),
    ],
)
def test_what_does_not_fit_is_refused(options, longest, message):
    with pytest.raises(RecipeError) as caught:
        scaled(LlamaConfig(max_position_embeddings=4096), longest, **options)
    assert re.search(message, str(caught.value))


def test_a_model_without_rotary_positions_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="accelerators: a gpt2 model has no rotary positions"):
        load(tmp_path, "rope_scaling", family={"name": "gpt2"}, training={"max_length": 512})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta_fast": 4.0, "rope_type": "linear"}, "beta_fast is no option of rope_type linear"),
        ({"rope_type": "longrope"}, "longrope needs short_factor and long_factor"),
        ({"beta_fast": 1, "beta_slow": 2}, "beta_fast has to be at least beta_slow"),
        ({"rope_type": "llama3", "low_freq_factor": 4}, "high_freq_factor has to exceed"),
        (
            {"factor": 2, "original_max_position_embeddings": 1000},
            r"accelerators\.0\.factor: 1000 positions × 2 .*set factor: 9",
        ),
    ],
)
def test_options_are_checked_before_anything_loads(tmp_path, options, message):
    recipe = asked(tmp_path, {"name": "rope_scaling", **options}, training={"max_length": 8192})
    with pytest.raises(RecipeProblems, match=message):
        check.resolve(recipe)
