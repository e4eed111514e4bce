"""Quantization-aware training, and what of torchao needs a GPU."""

from pathlib import Path

import pytest
import torch
from torchao.quantization import Int4WeightOnlyConfig
from transformers import AutoModelForCausalLM

from envs.quantizers.quantizer_setup import IDS, distance, gradients, learn, logits, losses, run_of
from tunewright_hf.models.export import save_result
from tunewright_torchao import TorchAo, linear

QAT = {"name": "torchao", "type": "int4", "group_size": 32, "qat": True}


def test_layers_compute_with_rounded_weights() -> None:
    """Of a group no more than 16 values are left, and the model says what a plain one with these
    weights says."""
    loaded = run_of(QAT, adapter="full").load()
    plain = run_of(adapter="full").load()
    assert not loaded.quantized
    assert distance(logits(loaded), logits(plain)) > 0.01
    layers = {n: m for n, m in loaded.model.named_modules() if n.endswith("_proj")}
    assert len(layers) == 14
    for name, layer in layers.items():
        weight = layer.weight_fake_quantizer(layer.weight).detach()
        groups = weight.reshape(-1, 32)
        assert max(len(group.unique()) for group in groups) <= 16
        assert distance(weight, layer.weight) < 0.2
        plain.model.get_submodule(name).weight.data = weight
    assert distance(logits(loaded), logits(plain)) < 1e-5


def test_weights_are_trained_and_saved_plain(tmp_path: Path) -> None:
    loaded = run_of(QAT, adapter="full").load()
    assert any(name.endswith("q_proj.weight") for name in gradients(loaded))
    learn(loaded, 1)
    save_result(loaded, tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    saved, own = plain.state_dict(), loaded.model.state_dict()
    assert saved.keys() == own.keys()
    assert all(torch.equal(saved[name], own[name]) for name in own)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["int4", "int8", "int8_dynamic"])
def test_a_run_learns(kind: str, tmp_path: Path) -> None:
    found = losses(tmp_path, QAT | {"type": kind}, "sft", adapter="full")
    assert sum(found[-3:]) / 3 < 0.9 * found[0]


def test_int4_is_asked_for_as_torchao_has_it() -> None:
    found = linear.config(TorchAo.Options(type="int4", group_size=64)).quant_type
    assert isinstance(found, Int4WeightOnlyConfig)
    assert (found.group_size, str(found.int4_packing_format)) == (64, "tile_packed_to_4d")


@pytest.mark.gpu
def test_int4_on_a_gpu() -> None:
    family = {"name": "qwen", "device": "cuda:0", "tiny_hidden_size": 256, "dtype": "bfloat16"}
    run = run_of({"name": "torchao", "type": "int4", "group_size": 32}, family=family)
    loaded = run.load()
    assert len(loaded.quantized) == 14
    ids = IDS.cuda()
    loss = loaded.model.train()(input_ids=ids, labels=ids).loss
    loss.backward()
    assert all(p.grad is not None for p in loaded.model.parameters() if p.requires_grad)
