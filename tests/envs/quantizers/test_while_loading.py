"""Quantizers that quantize while a model loads: what they quantize, that LoRA's gradients on it are
those of the dequantized model, and that saving, loading and merging keep what was trained."""

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from envs.quantizers.quantizer_setup import IDS, distance, gradients, learn, logits, losses, run_of
from tunewright.types import StageResult
from tunewright_conformance import measure
from tunewright_hf.models.dequantized import plain_weight
from tunewright_hf.models.export import save_result
from tunewright_hf.models.modules import base_model, quantized_modules
from tunewright_lora import Lora

#: name → options, distance of the logits from the plain model's, and of LoRA's gradients from those
#: on dequantized weights (where activations are rounded too, they differ)
CASES: dict[str, tuple[dict[str, Any], float, float]] = {
    **{
        f"hqq-{bits}": ({"name": "hqq", "bits": bits}, error, 1e-4)
        for bits, error in ((8, 0.02), (6, 0.05), (5, 0.1), (4, 0.2), (3, 0.4), (2, 0.8), (1, 1.5))
    },
    **{
        f"quanto-{kind}": ({"name": "quanto", "weights": kind}, error, 1e-4)
        for kind, error in (("int8", 0.02), ("int4", 0.3), ("int2", 1.0), ("float8", 0.1))
    },
    "torchao-int8": ({"name": "torchao"}, 0.02, 1e-4),
    "torchao-float8": ({"name": "torchao", "type": "float8"}, 0.1, 1e-4),
    "torchao-int8_dynamic": ({"name": "torchao", "type": "int8_dynamic"}, 0.03, 0.1),
}
#: distance of a merged model's logits from those of adapter and base
MERGED = {"torchao-int8_dynamic": 0.03}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def layers(loaded: Any) -> dict[str, Any]:
    """The quantized layers, below LoRA."""
    model = base_model(loaded.model)
    found = {name: model.get_submodule(name) for name in loaded.quantized}
    return {name: getattr(layer, "base_layer", layer) for name, layer in found.items()}


def test_what_is_quantized_and_its_bytes(case: str) -> None:
    options, error, _ = CASES[case]
    plain, run = run_of().load(), run_of(options)
    loaded = run.load()
    assert loaded.quantized == {
        f"model.layers.{layer}.{name}"
        for layer in range(2)
        for name in (
            *(f"self_attn.{part}_proj" for part in "qkvo"),
            *(f"mlp.{part}_proj" for part in ("gate", "up", "down")),
        )
    }
    for name, layer in layers(loaded).items():
        weight = base_model(plain.model).get_submodule(name).base_layer.weight
        said = run.plugin("quantizer").weight_bytes(tuple(weight.shape), "float32")
        assert measure.layer_bytes(layer) == pytest.approx(said, rel=0.01), name
    trained = {name for name, p in loaded.model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    assert distance(logits(loaded), logits(plain)) < error
    assert torch.equal(logits(run.load()), logits(loaded))


def test_gradients_are_those_of_the_dequantized_model(case: str) -> None:
    """An adapter that is not new gets gradients in all of its layers: those below a layer without a
    backward pass would be wrong, and nothing would say so."""
    options, _, tolerance = CASES[case]
    loaded = run_of(options).load()
    learn(loaded, 1)
    found = gradients(loaded)
    for layer in layers(loaded).values():
        weight = plain_weight(layer, torch.float32)
        layer.forward = lambda x, weight=weight: x @ weight.T
    expected = gradients(loaded)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert distance(found[name], gradient) < tolerance, name


def test_saved_merged_and_in_plain_peft(case: str, tmp_path: Path) -> None:
    options, _, _ = CASES[case]
    run = run_of(options)
    loaded = run.load()
    before = logits(loaded)
    learn(loaded)
    expected = logits(loaded)
    assert distance(expected, before) > 0.05
    save_result(loaded, tmp_path / "adapter")
    again = run.load(prior=StageResult(tmp_path / "adapter", "adapter"), trainable=False)
    assert torch.equal(logits(again), expected)

    merged = Lora(Lora.Options()).merge(loaded)
    assert not merged.quantized and not quantized_modules(merged.model)
    found = logits(merged)
    assert distance(found, expected) < MERGED.get(case, 1e-5)
    save_result(merged, tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert plain.config.to_dict().get("quantization_config") is None
    torch.testing.assert_close(plain(input_ids=IDS).logits, found, atol=1e-5, rtol=1e-5)

    base = base_model(run.load().model.unload()).dequantize()
    plain_peft = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    with torch.no_grad():
        assert distance(plain_peft(input_ids=IDS).logits, found) < 1e-5


LEARNS = ("hqq-4", "hqq-2", "quanto-int4", "torchao-int8", "torchao-int8_dynamic")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "dpo", "reward"])
@pytest.mark.parametrize("name", LEARNS)
def test_lora_learns(name: str, stage: str, tmp_path: Path) -> None:
    found = losses(tmp_path, CASES[name][0], stage)
    assert sum(found[-3:]) / 3 < 0.9 * found[0]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "pure_bf16"])
@pytest.mark.parametrize("name", ["hqq-4", "quanto-int8", "torchao-int8", "torchao-int8_dynamic"])
def test_learns_in_bf16(name: str, precision: str, tmp_path: Path) -> None:
    family = {"name": "qwen", "device": "cpu", "tiny_hidden_size": 128, "dtype": "bfloat16"}
    found = losses(tmp_path, CASES[name][0], "sft", precision, family=family)
    assert sum(found[-3:]) / 3 < 0.9 * found[0]
