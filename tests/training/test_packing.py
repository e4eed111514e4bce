"""Packed is unpacked: the same loss and the same gradients with every attention, whatever is
trained of a row."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import create_mask
from torch.nn.functional import scaled_dot_product_attention
from training_setup import SIZE, model, qwen, rows
from transformers import LlamaConfig, MistralConfig
from transformers.integrations import flex_attention as flex

from tunewright_hf.batching.collators import Packed, Padded
from tunewright_hf.losses.causal_lm import CausalLoss
from tunewright_hf.training.stage_trainer import moved

CONFIGS = {
    "llama": lambda: None,
    "qwen3": qwen,
    "sliding": lambda: MistralConfig(**SIZE, sliding_window=5),
}
TRAINED = ("sft", "weighted", "pretrain")


def data(trained: str) -> list[dict[str, Any]]:
    found = list(rows(6, weighted=trained == "weighted"))
    return (
        [{**row, "labels": row["input_ids"]} for row in found] if trained == "pretrain" else found
    )


def measured(made: Any, trained: str) -> Iterator[tuple[torch.Tensor, list[torch.Tensor]]]:
    """(loss, gradients; none under no_grad): padded, packed, and packed in another order."""
    rows = data(trained)
    for batch in (Padded(0)(rows), Packed()(rows), Packed()(rows[::-1])):
        batch = moved(batch, made.device)
        labels, weights = batch.pop("labels"), batch.pop("loss_weights", None)
        made.zero_grad()
        loss, _ = CausalLoss(made)(made, batch["inputs"], labels, weights)
        if torch.is_grad_enabled():
            loss.backward()
        yield (
            loss.detach(),
            [each.grad.clone() for each in made.parameters() if each.grad is not None],
        )


def assert_equal(made: Any, trained: str, **tolerance: float) -> None:
    padded, *packed = measured(made, trained)
    for other in packed:
        torch.testing.assert_close(other, padded, **(tolerance or {"rtol": 1e-5, "atol": 1e-5}))


@pytest.mark.parametrize("trained", TRAINED)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_eager_and_sdpa(attention, config, trained):
    assert_equal(model(config(), attention), trained)


# Flex attention has no backward on a CPU, compiled or not, and compiling it takes minutes. So here
# its loss is compared as PyTorch computes it without compiling, and its gradients through the mask
# that it is given.
quiet = pytest.mark.filterwarnings(
    "ignore:.*flex_attention called without torch.compile.*",
    "ignore:_compile flag on create_block_mask.*",
)


@pytest.fixture
def uncompiled(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(flex.WrappedFlexAttention, "_is_flex_compiled", False)
    monkeypatch.setattr(flex.WrappedFlexAttention, "_instance", None)


def dense(query, key, value, block_mask=None, scale=None, **_):
    """Flex attention's result, from plain operations."""
    size = (*query.shape[:-1], key.shape[-2])
    mask = create_mask(block_mask.mask_mod, *size, device=query.device)
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scale, enable_gqa=True
    )


@quiet
@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("trained", TRAINED)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_flex(config, trained, monkeypatch):
    made = model(config(), "flex_attention")
    with torch.no_grad():
        assert_equal(made, trained)
        (loss, _), *_ = measured(made, trained)
    monkeypatch.setattr(flex, "compile_friendly_flex_attention", dense)
    assert_equal(made, trained)
    (same, _), *_ = measured(made, trained)
    torch.testing.assert_close(same, loss)


@quiet
@pytest.mark.gpu
@pytest.mark.parametrize("trained", TRAINED)
@pytest.mark.parametrize(
    "attention", ["eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3"]
)
def test_on_a_gpu(attention, trained):
    flash = attention.startswith("flash")
    if flash:
        pytest.importorskip("flash_attn" if attention.endswith("2") else "flash_attn_interface")
    # flash and flex know no smaller heads
    config = LlamaConfig(**{**SIZE, "hidden_size": 128, "head_dim": 32})
    made = model(config, attention).to("cuda", torch.bfloat16 if flash else torch.float32)
    assert_equal(made, trained, rtol=3e-2 if flash else 1e-3, atol=3e-2 if flash else 1e-3)
