"""Layer-wise decay of the learning rate, worked out by hand for two families."""

import pytest
import torch
from accelerators_setup import asked

from tunewright import RecipeError, check
from tunewright.types import LoadedModel
from tunewright_hf.training.layer_decay import layer_decay_scales
from tunewright_hf.training.param_groups import learning_rate_scales


def model_of(folder, family, adapter="full"):
    from tunewright.context import Run

    recipe = asked(folder, adapter=adapter, family={"name": family, "tiny_layers": 3})
    run = Run(check.resolve(recipe))
    return run.load()


def scales_of(made, decay, patterns=None):
    names = [name for name, each in made.model.named_parameters() if each.requires_grad]
    own = layer_decay_scales(made, names, decay)
    found = learning_rate_scales(names, patterns or {}, own)
    return {name: found.get(name, 1.0) for name in names}


#: family → parts of names, and their factors with a decay of 0.5 and three layers
LLAMA = {
    "embed_tokens": 0.125,
    "layers.0.": 0.25,
    "layers.1.": 0.5,
    "layers.2.": 1.0,
    "model.norm": 1.0,
    "lm_head": 1.0,
}
GPT2 = {
    "wte": 0.125,
    "wpe": 0.125,
    "h.0.": 0.25,
    "h.1.": 0.5,
    "h.2.": 1.0,
    "ln_f": 1.0,
}


@pytest.mark.parametrize(("family", "expected"), [("llama", LLAMA), ("gpt2", GPT2)])
def test_full_training(tmp_path, family, expected):
    found = scales_of(model_of(tmp_path, family), 0.5)
    seen = set()
    for name, scale in found.items():
        (part,) = [part for part in expected if part in f".{name}"]
        assert scale == expected[part], name
        seen.add(part)
    assert seen >= set(expected) - {"lm_head"}  # which may be tied


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_adapters(tmp_path, family):
    adapter = {"name": "lora", "rank": 4, "loraplus_ratio": 16.0}
    made = model_of(tmp_path, family, adapter)
    plain, found = scales_of(made, 1.0), scales_of(made, 0.5)
    layers = "h" if family == "gpt2" else "layers"
    for name, scale in found.items():
        number = int(name.partition(f".{layers}.")[2].partition(".")[0])
        assert plain[name] == (16.0 if "lora_B" in name else 1.0)
        assert scale == plain[name] * 0.5 ** (2 - number), name
    assert len(found) > 12


def test_it_multiplies_the_patterns(tmp_path):
    made = model_of(tmp_path, "llama")
    found = scales_of(made, 0.5, {"embed_tokens": 8.0, r"layers\.1\.": 3.0})
    assert found["model.embed_tokens.weight"] == 1.0
    assert found["model.layers.1.mlp.up_proj.weight"] == 1.5
    assert found["model.layers.0.mlp.up_proj.weight"] == 0.25


def test_a_step_of_sgd_by_hand(tmp_path):
    """Plain SGD moves a parameter by the learning rate × factor × gradient."""
    from accelerators_setup import go

    from tunewright_hf.checkpoints.state_codec import load_state

    training = {
        "max_steps": 1,
        "save_steps": 1,
        "learning_rate": 0.5,
        "max_grad_norm": 0,
    }
    sections = {"optimizer": "sgd", "adapter": "full"}
    before = dict(model_of(tmp_path / "zero", "llama").model.named_parameters())

    def moved(name, decay):
        family = {"tiny_layers": 3}
        made = go(
            tmp_path / name,
            **sections,
            family={"name": "llama", **family},
            training={**training, "layer_lr_decay": decay},
        )
        after = load_state(made.folder / "run/checkpoints/step-1", "weights")
        return {key: after[key] - before[key].detach() for key in after}

    plain, decayed = moved("plain", 1.0), moved("decayed", 0.5)
    for name, change in plain.items():
        (factor,) = [each for part, each in LLAMA.items() if part in f".{name}"]
        assert torch.allclose(decayed[name], factor * change, atol=1e-6), name
    assert plain["model.layers.0.mlp.up_proj.weight"].abs().max() > 1e-4


def test_models_without_layers_are_refused():
    class Bare(torch.nn.Module):
        config = type("C", (), {"get_text_config": lambda self: self, "num_hidden_layers": 2})()

    with pytest.raises(RecipeError, match=r"layer_lr_decay: Bare has no list of 2 layers"):
        layer_decay_scales(LoadedModel(Bare(), None), ["a"], 0.5)
