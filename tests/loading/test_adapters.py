"""The adapters full and freeze: what is trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from loading_setup import apply, load, train, trainable

from tunewright import RecipeError
from tunewright_conformance.doubles import FakeRun
from tunewright_freeze import Freeze
from tunewright_full import Full
from tunewright_hf.models.modules import quantized_modules


def freeze(**options: Any) -> Freeze:
    return Freeze(Freeze.Options(**options))


def test_full(run: FakeRun) -> None:
    loaded = apply(run, Full(Full.Options()))
    assert loaded.saves == "model"
    assert trainable(loaded) == {name for name, _ in loaded.model.named_parameters()}
    assert not trainable(apply(run, Full(Full.Options()), trainable=False))


def test_full_without_embeddings(run: FakeRun) -> None:
    loaded = apply(run, Full(Full.Options(train_embeddings=False)), load(run, twin="llama3"))
    frozen = {name for name, _ in loaded.model.named_parameters()} - trainable(loaded)
    assert frozen == {"model.embed_tokens.weight"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"trainable_layers": 1}, {"model.layers.2."}),
        ({"trainable_layers": 2}, {"model.layers.1.", "model.layers.2."}),
        ({"trainable_layers": -1}, {"model.layers.0."}),
        ({"trainable_layers": 1, "modules": ["mlp"]}, {"model.layers.2.mlp."}),
        (
            {"trainable_layers": 1, "modules": ["self_attn.q_proj"]},
            {"model.layers.2.self_attn.q_proj."},
        ),
        ({"trainable_layers": 1, "extra_modules": ["norm"]}, {"model.layers.2.", "model.norm."}),
        ({"trainable_layers": 0, "extra_modules": ["lm_head"]}, {"lm_head."}),
        (
            {"trainable_layers": 0, "parameters": [r"model\.layers\.[01]\.mlp\.up", "lm_head"]},
            {"model.layers.0.mlp.up", "model.layers.1.mlp.up", "lm_head."},
        ),
        (
            {"trainable_layers": 1, "parameters": [r".*layers\.0.*norm"]},
            {
                "model.layers.2.",
                "model.layers.0.input_layernorm",
                "model.layers.0.post_attention_layernorm",
            },
        ),
    ],
)
def test_freeze(run: FakeRun, options: dict[str, Any], expected: set[str]) -> None:
    loaded = apply(run, freeze(**options), load(run, twin="llama3", options={"tiny_layers": 3}))
    wanted = {
        name for name, _ in loaded.model.named_parameters() if name.startswith(tuple(expected))
    }
    assert wanted
    assert trainable(loaded) == wanted
    before = {name: parameter.clone() for name, parameter in loaded.model.named_parameters()}
    train(loaded)
    moved = {
        name
        for name, parameter in loaded.model.named_parameters()
        if not torch.equal(parameter, before[name])
    }
    assert moved == wanted


def test_freeze_trains_a_new_head(run: FakeRun) -> None:
    loaded = apply(run, freeze(trainable_layers=1), load(run, head="score"), head="score")
    assert "score.weight" in trainable(loaded)
    assert "model.layers.0.mlp.up_proj.weight" not in trainable(loaded)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"trainable_layers": 5}, "the model has 2 layers, not 5"),
        ({"modules": ["mlpp"]}, "the model has no module 'mlpp'"),
        ({"extra_modules": ["head"]}, "the model has no module 'head'"),
        ({"trainable_layers": 0}, "nothing is left to train"),
        ({"parameters": ["mlp"]}, "parameters: 'mlp' matches no parameter, such as model.embed"),
    ],
)
def test_freeze_mistakes(run: FakeRun, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        apply(run, freeze(**options))


def test_freeze_with_a_broken_pattern() -> None:
    with pytest.raises(ValueError, match=r"'\(' is no regular expression"):
        freeze(parameters=["("])


@pytest.mark.parametrize("plugin", [Full(Full.Options()), freeze()])
@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.float8_e5m2])
def test_quantized_weights_cannot_be_trained(run: FakeRun, plugin: Any, dtype: torch.dtype) -> None:
    loaded = load(run)
    quantize(loaded.model.model.layers[1].mlp.up_proj, dtype)
    loaded.quantized = quantized_modules(loaded.model)
    assert loaded.quantized == {"model.layers.1.mlp.up_proj"}
    with pytest.raises(RecipeError, match=r"up_proj.weight is quantized and cannot be trained"):
        apply(run, plugin, loaded)
    assert not trainable(apply(run, plugin, loaded, trainable=False))


def quantize(linear: torch.nn.Linear, dtype: torch.dtype) -> None:
    linear.weight = torch.nn.Parameter(linear.weight.detach().to(dtype), requires_grad=False)


def test_quantized_modules(run: FakeRun) -> None:
    """By dtype, by what transformers' quantizer of the model says, and by packed buffers."""

    class Quantizer:
        """Stands for transformers' quantizer of a model: storage that looks like plain weights."""

        def param_needs_quantization(self, model: Any, name: str) -> bool:
            return name.endswith("down_proj.weight")

    model = load(run).model
    assert quantized_modules(model) == set()
    layer = model.model.layers[0]
    layer.self_attn.register_buffer("packed", torch.zeros(2, 2, dtype=torch.int32))
    assert quantized_modules(model) == set()  # without a quantizer, such as a mask
    quantize(layer.mlp.up_proj, torch.float8_e4m3fn)
    layer.mlp.down_proj.to(torch.bfloat16)
    model.hf_quantizer = Quantizer()
    assert quantized_modules(model) == {
        "model.layers.0.self_attn",
        "model.layers.0.mlp.up_proj",
        "model.layers.0.mlp.down_proj",
        "model.layers.1.mlp.down_proj",
    }


@pytest.mark.parametrize(
    "plugin", [Full(Full.Options()), Full(Full.Options(train_embeddings=False)), freeze()]
)
def test_names_of_what_is_trained(run: FakeRun, plugin: Any) -> None:
    loaded = apply(run, plugin)
    assert loaded.trained == trainable(loaded)
    assert loaded.trained
    assert apply(run, plugin, trainable=False).trained == set()


@pytest.mark.parametrize("plugin", [Full(Full.Options()), freeze()])
def test_nothing_to_merge(run: FakeRun, plugin: Any) -> None:
    loaded = apply(run, plugin)
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    merged = plugin.merge(loaded)
    assert merged.saves == "model"
    assert all(
        torch.equal(value, before[name]) for name, value in merged.model.state_dict().items()
    )


@pytest.mark.parametrize("plugin", [Full(Full.Options()), freeze()])
def test_no_adapter_to_go_on_from(run: FakeRun, plugin: Any, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="the run trained an adapter"):
        apply(run, plugin, adapter_path=tmp_path)
