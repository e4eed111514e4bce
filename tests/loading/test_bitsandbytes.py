"""Quantizer bitsandbytes on the CPU: what is quantized, and that evaluation does not spoil what is
trained after it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from transformers import AutoModelForCausalLM

from tunewright import Plugin, RecipeError
from tunewright.check import resolve
from tunewright.recipe import Recipe, Section
from tunewright.run import Run
from tunewright.types import LoadRequest
from tunewright_bitsandbytes import BitsAndBytes
from tunewright_freeze import Freeze
from tunewright_full import Full
from tunewright_hf.models.modules import quantized_modules
from tunewright_hf.models.stored_weights import keep_layout
from tunewright_lora import Lora

RECIPE: dict[str, Any] = {
    "model": "tiny",
    "family": {"name": "qwen", "device": "cpu"},
    "template": "qwen3",
    "stage": "sft",
    "loggers": [],
    "data": [{"path": "none.jsonl"}],
    "adapter": {"name": "lora", "rank": 4},
    "output": "none",
}
IDS = torch.arange(12).reshape(2, 6)  # (B, T)


def load(head: Any = "causal_lm", adapter: Any = None, **quantizer: Any) -> Any:
    changed = {
        "training": {"precision": "fp32"},  # auto is bf16 on CPUs with AMX
        "quantizer": {"name": "bitsandbytes", **quantizer},
        "adapter": adapter or RECIPE["adapter"],
    }
    return Run(resolve(RECIPE | changed, combined=False)).load(head=head)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    model.train().zero_grad()
    model(input_ids=IDS).logits.float().square().mean().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("head", ["causal_lm", "score"])
def test_layers_are_quantized_and_heads_are_not(bits: int, head: str) -> None:
    model = load(head, bits=bits).model
    integers = {torch.uint8, torch.int8}
    quantized = {name for name, p in model.named_parameters() if p.dtype in integers}
    assert quantized and all(name.endswith("_proj.base_layer.weight") for name in quantized)
    assert len(quantized) == sum(
        name.endswith("lora_A.default.weight") for name, _ in model.named_parameters()
    )
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in name or "score" in name for name in trained)
    assert gradients(model).keys() == trained


def test_the_values_are_near() -> None:
    plain = Run(resolve(RECIPE)).load().model.base_model.model
    for bits, tolerance in ((4, 0.25), (8, 0.05)):
        model = load(bits=bits).model.base_model.model
        with torch.no_grad():
            wanted, found = (each(input_ids=IDS).logits for each in (plain, model))
        assert (wanted - found).norm() / wanted.norm() < tolerance


@pytest.mark.parametrize(
    "options", [{"bits": 4}, {"bits": 4, "type": "fp4", "double_quantization": False}, {"bits": 8}]
)
def test_evaluation_changes_no_gradient(options: dict[str, Any]) -> None:
    model = load(**options).model
    before = gradients(model)
    with torch.no_grad():
        model.eval()(input_ids=IDS)
    after = gradients(model)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.fixture
def repacking(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A CPU with AVX512-BF16, and the layers that are repacked on it."""
    from bitsandbytes.nn import modules

    seen: list[int] = []

    def repacked(weight: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        seen.append(weight.numel())
        return weight, state

    monkeypatch.setattr(modules, "has_avx512bf16", lambda: True)
    monkeypatch.setattr(modules, "_convert_weight_packed_for_cpu", repacked)
    return seen


def test_no_layer_is_repacked(repacking: list[int]) -> None:
    """bitsandbytes repacks weights in evaluation, and then reads them wrongly in training."""
    with torch.no_grad():
        load().model.eval()(input_ids=IDS)
    assert repacking == []


def test_without_the_remedy_layers_are_repacked(
    repacking: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, bitsandbytes is fixed, and `keep_layout` can be removed."""
    monkeypatch.setattr("tunewright_hf.models.stored_weights.keep_layout", lambda model: None)
    model = load().model
    with torch.no_grad():
        model.eval()(input_ids=IDS)
    assert repacking
    repacking.clear()
    keep_layout(model)
    with torch.no_grad():
        model(input_ids=IDS)
    assert repacking == []


def test_what_was_quantized() -> None:
    for bits in (4, 8):
        loaded = load(bits=bits)
        assert loaded.quantized == {
            f"model.layers.{layer}.{name}"
            for layer in range(2)
            for name in (
                *(f"self_attn.{part}_proj" for part in "qkvo"),
                *(f"mlp.{part}_proj" for part in ("gate", "up", "down")),
            )
        }
        assert loaded.trained == {n for n, p in loaded.model.named_parameters() if p.requires_grad}


def test_merging_dequantizes(tmp_path: Path) -> None:
    """After merging, the model gives the same logits as in training: the sum is not rounded to 4
    bits again."""
    for bits, tolerance in ((4, 1e-5), (8, 0.02)):
        adapter = {"name": "lora", "rank": 4, "bias": "all", "modules_to_save": ["norm"]}
        # in fp32: a CPU with AMX computes in bf16 otherwise
        loaded = load(adapter=adapter, bits=bits)
        optimizer = torch.optim.SGD([p for p in loaded.model.parameters() if p.requires_grad], 0.5)
        before = loaded.model.eval()(input_ids=IDS).logits.detach()
        for _ in range(3):
            loaded.model(input_ids=IDS, labels=IDS).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        learned = loaded.model.eval()(input_ids=IDS).logits.detach()
        assert not torch.allclose(learned, before, atol=0.1)
        merged = Lora(Lora.Options()).merge(loaded)
        assert merged.quantized == set() and merged.saves == "model"
        assert quantized_modules(merged.model) == set()
        found = merged.model(input_ids=IDS).logits.detach()
        torch.testing.assert_close(found, learned, atol=tolerance, rtol=0)
        merged.model.save_pretrained(tmp_path / str(bits))
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / str(bits))
        assert torch.equal(plain(input_ids=IDS).logits, found)


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({"bits": 4}, "bfloat16"),
        ({"bits": 4, "double_quantization": False}, "float32"),
        ({"bits": 4, "type": "fp4"}, "float16"),
        ({"bits": 8}, "float16"),
    ],
)
@pytest.mark.parametrize("shape", [(64, 64), (48, 200), (333, 128)])
def test_bytes_of_a_weight(options: dict[str, Any], dtype: str, shape: tuple[int, int]) -> None:
    """Equal to the size of a quantized layer's tensors."""
    quantizer = BitsAndBytes(BitsAndBytes.Options(**options))
    kind = bitsandbytes.nn.Linear8bitLt if options["bits"] == 8 else bitsandbytes.nn.Linear4bit
    chosen: dict[str, Any] = {"has_fp16_weights": False}
    if options["bits"] == 4:
        chosen = {
            "quant_type": quantizer.options.type,
            "compress_statistics": quantizer.options.double_quantization,
        }
    layer = kind(shape[1], shape[0], bias=False, **chosen)
    layer.weight.data = torch.randn(shape, dtype=getattr(torch, dtype))
    weight = layer.to("cpu").weight
    if options["bits"] == 8:
        parts = [weight.data, weight.SCB]
    else:
        state = weight.quant_state
        parts = [weight.data, state.absmax, state.code]
        if state.nested:
            parts += [state.offset, state.state2.absmax, state.state2.code]
    assert weight.dtype in (torch.uint8, torch.int8)
    assert quantizer.weight_bytes(shape, dtype) == sum(part.nbytes for part in parts)


@pytest.mark.parametrize(
    ("family", "request_device", "expected"),
    [
        ("cpu", None, "cpu"),
        ("auto", None, "cuda"),
        ("auto", "cpu", "cpu"),
        ("cuda:1", "cpu", "cpu"),
    ],
)
def test_compute_dtype_is_that_of_the_models_device(
    family: str, request_device: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine with a GPU that has bf16 a model on the CPU computes in fp32."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)  # no matrix units for bf16
    recipe = RECIPE | {"family": {"name": "qwen", "device": family}, "quantizer": "bitsandbytes"}
    run = Run(resolve(recipe))
    request = LoadRequest("tiny", device=request_device)
    assert run.plugin("quantizer").prepare_load(run, request)
    dtype = request.quantization.bnb_4bit_compute_dtype
    assert dtype == (torch.bfloat16 if expected == "cuda" else torch.float32)


class Resolved:
    """Stands for tunewright.check.Resolved: a recipe, and the class of its adapter."""

    def __init__(self, name: str, adapter: type[Plugin] | None) -> None:
        self.recipe = Recipe.model_validate(
            {"model": "-", "stages": ["-"], "output": "-", "adapter": Section(name=name)}
        )
        self._adapter, self.lists = adapter, {}

    def plugin(self, kind: str) -> type[Plugin] | None:
        assert kind == "adapter"
        return self._adapter


def test_objections() -> None:
    """Adapters that train the model's own weights are refused before anything loads."""

    class Strange(Plugin):
        """An adapter without the kind's base class."""

    quantizer = BitsAndBytes(BitsAndBytes.Options())
    quantizer.at = ("quantizer",)
    for name, adapter in (("full", Full), ("freeze", Freeze)):
        (problem,) = quantizer.objections(Resolved(name, adapter))
        assert problem.path == ("quantizer",)
        assert f"adapter {name} trains them" in problem.message and problem.hint
    for name, adapter in (("lora", Lora), ("strange", Strange), ("none", None)):
        assert list(quantizer.objections(Resolved(name, adapter))) == []


@pytest.mark.parametrize("adapter", ["full", {"name": "freeze", "trainable_layers": 1}])
def test_quantized_weights_cannot_be_trained(adapter: Any) -> None:
    with pytest.raises(RecipeError, match="is quantized and cannot be trained") as caught:
        load(adapter=adapter)
    assert "lora" in caught.value.hint
    with pytest.raises(RecipeError, match="quantized weights cannot be trained"):
        resolve(RECIPE | {"quantizer": "bitsandbytes", "adapter": adapter})


@pytest.mark.parametrize(
    ("accelerator", "bits", "refused"),
    [("fsdp", 4, False), ("fsdp", 8, True), ("deepspeed", 4, True)],
)
def test_only_fsdp_shards_it_and_only_in_four_bits(
    accelerator: str, bits: int, refused: bool
) -> None:
    recipe = RECIPE | {
        "quantizer": {"name": "bitsandbytes", "bits": bits},
        "accelerators": [accelerator],
        "launch": {"processes": 2},
    }
    if not refused:
        assert resolve(recipe).plugin("quantizer") is BitsAndBytes
        return
    with pytest.raises(RecipeError, match=f"{accelerator} cannot shard weights that bitsandbytes"):
        resolve(recipe)
