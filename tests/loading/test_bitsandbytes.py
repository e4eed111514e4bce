"""Quantizer bitsandbytes on the CPU: what is quantized, and that evaluation does not spoil what is
trained after it."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tunewright import RecipeError
from tunewright.recipe import Recipe
from tunewright.run import Run
from tunewright_bitsandbytes.linear import keep_layout

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
        "quantizer": {"name": "bitsandbytes", **quantizer},
        "adapter": adapter or RECIPE["adapter"],
    }
    return Run(Recipe.model_validate(RECIPE | changed)).load(head=head)


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
    plain = Run(Recipe.model_validate(RECIPE)).load().model.base_model.model
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
    """Where this fails bitsandbytes has been mended, and `keep_layout` can go."""
    monkeypatch.setattr("tunewright_bitsandbytes.linear.keep_layout", lambda model: None)
    model = load().model
    with torch.no_grad():
        model.eval()(input_ids=IDS)
    assert repacking
    repacking.clear()
    keep_layout(model)
    with torch.no_grad():
        model(input_ids=IDS)
    assert repacking == []


@pytest.mark.parametrize("adapter", ["full", {"name": "freeze", "trainable_layers": 1}])
def test_quantized_weights_cannot_be_trained(adapter: Any) -> None:
    with pytest.raises(RecipeError, match="is quantized and cannot be trained") as caught:
        load(adapter=adapter)
    assert "lora" in caught.value.hint
