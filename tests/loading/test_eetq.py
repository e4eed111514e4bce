"""EETQ without a GPU: all of our code runs against a stand-in for its two functions, which
transformers' own EETQ layers call alike."""

import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.integrations import eetq as transformers_eetq

from tunewright import RecipeError
from tunewright.check import resolve
from tunewright.run import Run
from tunewright.types import StageResult
from tunewright_conformance import measure
from tunewright_hf.models import quantizers
from tunewright_hf.models.export import save_result
from tunewright_hf.models.modules import base_model
from tunewright_lora import Lora

RECIPE: dict[str, Any] = {
    "model": "tiny",
    "family": {"name": "qwen", "device": "cpu"},
    "template": "chatml",
    "stage": "sft",
    "loggers": [],
    "data": [{"path": "none.jsonl"}],
    "adapter": {"name": "lora", "rank": 4},
    "quantizer": "eetq",
    "training": {"precision": "fp32"},
    "output": "none",
}
IDS = torch.arange(24).reshape(2, 12)  # (B, T)


class StandIn(ModuleType):
    """The functions of EETQ's extension module (csrc/eetpy.cpp), with what they ask of tensors.

    The order in which a GPU wants the codes stays as it is.
    """

    def quant_weights(
        self,
        origin_weight: Tensor,
        quant_type: torch.dtype,
        return_unprocessed_quantized_tensor: bool = False,
    ) -> list[Tensor]:
        assert origin_weight.device.type == "cpu" and origin_weight.is_contiguous()
        assert origin_weight.dtype in (torch.float16, torch.float32)
        assert quant_type is torch.int8 and not return_unprocessed_quantized_tensor
        scales = origin_weight.abs().amax(0).float() / 128  # (out,)
        codes = (origin_weight / scales).round().clamp(-128, 127).to(torch.int8)
        return [codes, scales.to(origin_weight.dtype)]

    def w8_a16_gemm(self, input: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        assert input.is_contiguous() and input.dtype == scale.dtype == torch.float16
        assert weight.dtype == torch.int8 and input.shape[-1] == weight.shape[0]
        return ((input.float() @ weight.float()) * scale.float()).half()


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    found = StandIn("EETQ")
    monkeypatch.setitem(sys.modules, "EETQ", found)
    # a module that is imported now keeps the stand-in
    for name in [name for name in sys.modules if name.startswith("tunewright_eetq")]:
        monkeypatch.delitem(sys.modules, name)
    return found


def load(**sections: Any) -> Any:
    return Run(resolve(RECIPE | sections, combined=False)).load()


def logits(loaded: Any) -> Tensor:
    with torch.no_grad():
        return loaded.model.eval()(input_ids=IDS).logits.float()


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def learn(loaded: Any) -> list[float]:
    weights = [p for p in loaded.model.parameters() if p.requires_grad]
    optimizer, losses = torch.optim.AdamW(weights, lr=0.02), []
    for _ in range(5):
        loss = loaded.model.train()(input_ids=IDS, labels=IDS).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def test_what_is_quantized_and_its_bytes(stand_in: StandIn) -> None:
    plain, loaded = load(quantizer=None), load()
    assert len(loaded.quantized) == 14
    assert not any(name.endswith("lm_head") for name in loaded.quantized)
    plugin = Run(resolve(RECIPE, combined=False)).plugin("quantizer")
    for name in loaded.quantized:
        weight = base_model(plain.model).get_submodule(name).base_layer.weight
        layer = base_model(loaded.model).get_submodule(name).base_layer
        said = plugin.weight_bytes(tuple(weight.shape), "float32")
        assert measure.layer_bytes(layer) == pytest.approx(said, rel=0.01), name
    assert 0 < distance(logits(loaded), logits(plain)) < 0.02


def test_lora_learns_and_is_saved_and_merged(stand_in: StandIn, tmp_path: Path) -> None:
    loaded = load()
    losses = learn(loaded)
    assert losses[-1] < 0.95 * losses[0]
    expected = logits(loaded)
    save_result(loaded, tmp_path / "adapter")
    run = Run(resolve(RECIPE, combined=False))
    again = run.load(prior=StageResult(tmp_path / "adapter", "adapter"), trainable=False)
    assert torch.equal(logits(again), expected)
    merged = Lora(Lora.Options()).merge(loaded)
    assert not merged.quantized
    assert distance(logits(merged), expected) < 5e-3  # layers compute in float16


def test_an_adapter_that_reads_the_weight_fails(stand_in: StandIn) -> None:
    """DoRA would take the int8 codes for weights."""
    with pytest.raises(Exception, match=r"NoneType|weight"):
        load(adapter={"name": "lora", "rank": 4, "dora": True})


def test_the_calls_are_those_of_transformers(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers' layers call the same functions of EETQ's kernels: with the same arguments they
    give the same."""
    from tunewright_eetq.linear import EetqLinear

    calls: list[tuple[str, inspect.BoundArguments]] = []

    def noted(name: str) -> Any:
        function = getattr(StandIn, name)

        def call(*arguments: Any) -> Any:
            calls.append((name, inspect.signature(function).bind(stand_in, *arguments)))
            return function(stand_in, *arguments)

        return call

    for name in ("quant_weights", "w8_a16_gemm"):
        monkeypatch.setattr(stand_in, name, noted(name), raising=False)
    monkeypatch.setattr(transformers_eetq, "eetq_kernels_hub", stand_in, raising=False)
    plain, x = torch.nn.Linear(64, 32).half(), torch.randn(3, 64).half()
    own = EetqLinear(plain)(x)
    ours = [*calls]
    calls.clear()
    made = transformers_eetq.EetqQuantize(None).convert({"w": [plain.weight]}, "w")
    bias = plain.bias.detach()
    function = transformers_eetq.EetqLinearMMFunction
    theirs = function.apply(x, made["w"], made["w_scales"], bias)
    assert torch.equal(own, theirs)
    assert len(ours) == len(calls) == 2
    for (name, bound), (other, expected) in zip(ours, calls, strict=True):
        assert name == other
        for key, value in expected.arguments.items():
            same = torch.equal if isinstance(value, Tensor) else (lambda a, b: a is b)
            assert same(bound.arguments[key], value), (name, key)


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda"])
def test_recipe_check_tells_what_is_missing(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantizers, "has_gpu", lambda: device == "cpu")
    asked = RECIPE | {"family": {"name": "qwen", "device": device}}
    with pytest.raises(RecipeError, match="quantizer: eetq needs EETQ, which is not inst") as found:
        resolve(asked)
    assert "github.com/NetEase-FuXi/EETQ" in str(found.value)
    monkeypatch.setattr(quantizers, "is_installed", lambda module: True)
    with pytest.raises(RecipeError, match="eetq needs an NVIDIA GPU") as found:
        resolve(asked)
    assert len(str(found.value).splitlines()) == 1


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    pytest.importorskip("EETQ")
    family = {"name": "qwen", "device": "cuda:0", "tiny_hidden_size": 256, "dtype": "float16"}
    loaded = Run(resolve(RECIPE | {"family": family})).load()
    assert len(loaded.quantized) == 14
    loss = loaded.model.train()(input_ids=IDS.cuda(), labels=IDS.cuda()).loss
    loss.backward()
    assert all(p.grad is not None for p in loaded.model.parameters() if p.requires_grad)
