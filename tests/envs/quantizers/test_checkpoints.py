"""Quantized checkpoints, written in their upstream layouts and read by the real libraries: they are
recognised, say what the weights say, and LoRA trains on them."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from envs.quantizers.quantizer_setup import (
    IDS,
    distance,
    gradients,
    learn,
    logits,
    losses,
    recipe,
    run_of,
)
from envs.quantizers.test_while_loading import layers
from tunewright import RecipeError
from tunewright.check import resolve
from tunewright.run import Run
from tunewright.types import StageResult
from tunewright_conformance import measure
from tunewright_hf.models.dequantized import plain_weight
from tunewright_hf.models.export import save_result
from tunewright_hf.models.modules import base_model, quantized_modules
from tunewright_lora import Lora

#: name → options, distance of the logits from the plain model's, distances of a merged model's
#: logits and of gradients (AWQ computes in float16)
CASES: dict[str, tuple[dict[str, Any], float, float]] = {
    "awq": ({"name": "awq", "group_size": 32}, 0.3, 5e-3),
    **{
        f"gptq-{bits}": ({"name": "gptq", "bits": bits, "group_size": 32}, error, 5e-3)
        for bits, error in ((8, 0.02), (4, 0.3), (3, 0.5), (2, 1.2))
    },
    "aqlm-2x8": ({"name": "aqlm"}, 1.0, 1e-4),
    "aqlm-1x16": ({"name": "aqlm", "codebooks": 1}, 1e-3, 1e-4),  # a vector for every vector
}
#: those that are dequantized while they are loaded
PLAIN: dict[str, tuple[dict[str, Any], float]] = {
    **{
        f"compressed_tensors-{form}": ({"name": "compressed_tensors", "format": form}, error)
        for form, error in (
            ("pack-quantized", 0.3),  # int4
            ("int-quantized", 0.02),  # int8
            ("float-quantized", 0.1),  # float8
            ("nvfp4-pack-quantized", 0.3),
            ("mxfp4-pack-quantized", 0.3),
        )
    },
    "fp8": ({"name": "fp8"}, 0.1),
    "mxfp4": ({"name": "mxfp4"}, 0.5),
}


def family(name: str) -> dict[str, Any]:
    if name != "mxfp4":
        return {}
    return {
        "family": {"name": "gpt_oss", "device": "cpu", "tiny_hidden_size": 64},
        "template": None,
    }


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A quantized checkpoint: a tiny twin's, written by the quantizer of the case."""
    name = request.node.callspec.params["name"]
    options = (CASES.get(name) or PLAIN[name])[0]
    loaded = run_of(**family(name)).load()
    plain = base_model(loaded.model.unload())
    plain.save_pretrained(tmp_path / "checkpoint")
    loaded.tokenizer.save_pretrained(tmp_path / "checkpoint")
    run_of(options, **family(name)).plugin("quantizer").write_tiny(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.mark.parametrize("name", CASES)
def test_recognised_and_trained(name: str, folder: Path, tmp_path: Path) -> None:
    options, error, tolerance = CASES[name]
    plain = run_of().load()
    run = run_of(model=str(folder))  # no quantizer is named
    loaded = run.load()
    modules = {f"{m}_proj" for m in ("q", "k", "v", "o", "gate", "up", "down")}
    assert len(loaded.quantized) == 14
    assert {each.rpartition(".")[2] for each in loaded.quantized} == modules
    quantizer = run_of(options).plugin("quantizer")
    for module, layer in layers(loaded).items():
        weight = base_model(plain.model).get_submodule(module).base_layer.weight
        said = quantizer.weight_bytes(tuple(weight.shape), "float32")
        assert measure.layer_bytes(layer) == pytest.approx(said, rel=0.01), module

    assert distance(logits(loaded), logits(plain)) < error
    learn(loaded, 1)
    found = gradients(loaded)
    for layer in layers(loaded).values():
        matrix = plain_weight(layer, torch.float32)
        layer.forward = lambda x, matrix=matrix: x @ matrix.T
    expected = gradients(loaded)
    for each, gradient in expected.items():
        assert distance(found[each], gradient) < 2 * tolerance, each


@pytest.mark.parametrize("name", CASES)
def test_saved_and_merged(name: str, folder: Path, tmp_path: Path) -> None:
    run = run_of(model=str(folder))
    loaded = run.load()
    learn(loaded)
    expected = logits(loaded)
    save_result(loaded, tmp_path / "adapter")
    again = run.load(prior=StageResult(tmp_path / "adapter", "adapter"), trainable=False)
    assert torch.equal(logits(again), expected)
    merged = Lora(Lora.Options()).merge(loaded)
    assert not merged.quantized and not quantized_modules(merged.model)
    found = logits(merged)
    assert distance(found, expected) < CASES[name][2]
    save_result(merged, tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(plain(input_ids=IDS).logits, found, atol=1e-5, rtol=1e-5)
    base = base_model(run.load().model.unload()).dequantize()
    with torch.no_grad():
        other = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
        assert distance(other(input_ids=IDS).logits, found) < 1e-5


@pytest.mark.parametrize("name", PLAIN)
def test_dequantized_while_loaded(name: str, folder: Path, tmp_path: Path) -> None:
    error = PLAIN[name][1]
    plain = run_of(**family(name)).load()
    loaded = run_of(model=str(folder), **family(name)).load()
    assert not loaded.quantized
    assert distance(logits(loaded), logits(plain)) < error
    assert not torch.equal(logits(loaded), logits(plain))
    learn(loaded)
    expected = logits(loaded)
    save_result(loaded, tmp_path / "adapter")
    prior = StageResult(tmp_path / "adapter", "adapter")
    run = run_of(model=str(folder), **family(name))
    assert torch.equal(logits(run.load(prior=prior, trainable=False)), expected)
    base = base_model(run.load().model.unload())
    with torch.no_grad():
        other = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
        assert distance(other(input_ids=IDS).logits, expected) < 1e-5
    merged = Lora(Lora.Options()).merge(loaded)
    assert distance(logits(merged), expected) < 1e-5
    save_result(merged, tmp_path / "merged")
    written = json.loads((tmp_path / "merged/config.json").read_text("utf-8"))
    assert "quantization_config" not in written
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    torch.testing.assert_close(again(input_ids=IDS).logits, logits(merged), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["awq"])
def test_what_contradicts_the_checkpoint(name: str, folder: Path) -> None:
    wrong = {
        "already, not by hqq": {"quantizer": "hqq"},
        "already, not by gptq": {"quantizer": "gptq"},
        "group_size is 64": {"quantizer": {"name": "awq", "group_size": 64}},
        "cannot be trained, and full": {"adapter": "full"},
    }
    for said, sections in wrong.items():
        asked = recipe(model=str(folder), **sections)
        with pytest.raises(RecipeError, match=said) as caught:
            resolve(asked)
        assert len(str(caught.value).splitlines()) == 1
        unchecked = Run(resolve(asked, combined=False))  # a model of the hub is seen only there
        with pytest.raises(RecipeError, match=r"quantized|group_size") as caught:
            unchecked.load()
        assert len(str(caught.value).splitlines()) == 1
    run_of({"name": "awq", "group_size": 32}, model=str(folder)).load()


def test_a_format_that_contradicts_the_checkpoint(tmp_path: Path) -> None:
    loaded = run_of().load()
    base_model(loaded.model.unload()).save_pretrained(tmp_path)
    loaded.tokenizer.save_pretrained(tmp_path)
    run_of("compressed_tensors").plugin("quantizer").write_tiny(tmp_path)
    other = {"name": "compressed_tensors", "format": "int-quantized"}
    with pytest.raises(RecipeError, match="format is int-quantized, and the model's weights have"):
        run_of(other, model=str(tmp_path))


@pytest.mark.parametrize("kind", ["int8", "int8_dynamic", "float8"])
def test_a_checkpoint_of_torchao_is_recognised(kind: str, tmp_path: Path) -> None:
    """transformers writes torchao's weights as safetensors, and reads them."""
    quantizer = {"name": "torchao", "type": kind}
    loaded = run_of(quantizer).load()
    expected = logits(loaded)
    base_model(loaded.model.unload()).save_pretrained(tmp_path)
    loaded.tokenizer.save_pretrained(tmp_path)
    again = run_of(model=str(tmp_path)).load()
    assert len(again.quantized) == 14 and torch.equal(logits(again), expected)
    assert gradients(again).keys() == {
        n for n, p in again.model.named_parameters() if p.requires_grad
    }
    with pytest.raises(RecipeError, match="quantized already, and qat trains plain weights"):
        run_of(quantizer | {"qat": True}, model=str(tmp_path), adapter="full")


LEARNS = ("awq", "gptq-4", "gptq-2", "aqlm-2x8")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "dpo", "reward"])
@pytest.mark.parametrize("name", LEARNS)
def test_lora_learns(name: str, stage: str, tmp_path: Path) -> None:
    found = losses(tmp_path, CASES[name][0], stage)
    assert sum(found[-3:]) / 3 < 0.9 * found[0]
