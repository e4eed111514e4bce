"""Shifted sparse attention: what each head sees, and that one group changes nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerators_setup import go
from training_setup import SIZE, model
from transformers import AutoModelForCausalLM, MistralConfig

from tunewright import RecipeError, RunError
from tunewright.check import resolve
from tunewright_longlora.shifted import _attend, shifted_attention

IDS = torch.arange(3, 63).reshape(2, 30)


def logits(made: Any, **inputs: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = made(input_ids=IDS, use_cache=False, **inputs).logits
    return found


def visible(length: int, heads: int, size: int) -> torch.Tensor:
    """(heads, T, T): which keys a query sees, by the numbers of their groups."""
    place = torch.arange(length)
    plain, shifted = place // size, (place + size // 2) // size
    number = torch.stack([plain] * (heads // 2) + [shifted] * (heads - heads // 2))
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    return (number[:, :, None] == number[:, None, :]) & causal


@pytest.mark.parametrize(("length", "size"), [(32, 8), (30, 8), (17, 4), (9, 8)])
def test_heads_see_their_groups(length: int, size: int) -> None:
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, heads, length, 8, generator=draw) for heads in (4, 2, 2))
    module = torch.nn.Module().train()
    found, _ = _attend(module, query, key, value, None, size=size, scaling=0.3)
    key, value = (each.repeat_interleave(2, dim=1) for each in (key, value))
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=visible(length, 4, size), scale=0.3
    )
    torch.testing.assert_close(found, expected.transpose(1, 2))


@pytest.mark.parametrize("size", [30, 64])
def test_one_group_changes_nothing(size: int) -> None:
    made = model(attention="sdpa").train()
    expected = logits(made)
    with shifted_attention(made, size):
        assert torch.equal(logits(made), expected)


def test_only_while_training() -> None:
    made = model(attention="sdpa").train()
    expected = logits(made)
    with shifted_attention(made, 8):
        shifted = logits(made)
        # half a group sees all that is before it
        torch.testing.assert_close(shifted[:, :4], expected[:, :4])
        assert not torch.allclose(shifted, expected, atol=1e-3)
        assert torch.equal(logits(made.eval()), expected)
    assert torch.equal(logits(made.train()), expected)


def test_padding_on_the_right_changes_no_token() -> None:
    made = model(attention="sdpa").train()
    mask = torch.ones(2, 30, dtype=torch.long)
    mask[1, 12:] = 0
    with shifted_attention(made, 8):
        whole, padded = logits(made), logits(made, attention_mask=mask)
        assert torch.equal(padded[1, :12], whole[1, :12])
        left = mask.flip(1)
        with pytest.raises(RunError, match="longlora needs rows that are padded on the right"):
            logits(made, attention_mask=left)
        expected = logits(made.eval(), attention_mask=left)
    assert torch.equal(logits(made, attention_mask=left)[1, 18:], expected[1, 18:])


def test_windows_are_refused() -> None:
    made = AutoModelForCausalLM.from_config(MistralConfig(**SIZE, sliding_window=8))
    with (
        pytest.raises(RecipeError, match=r"has layers of sliding_attention, and longlora is for"),
        shifted_attention(made, 4),
    ):
        pass


def test_trains_with_lora(tmp_path: Path) -> None:
    lora = {"adapter": {"name": "lora", "rank": 4, "modules_to_save": ["embed_tokens", "norm"]}}
    plain = go(tmp_path / "plain", **lora)
    with_it = go(tmp_path / "with", {"name": "longlora", "group_size": 8}, **lora)
    assert with_it.losses != plain.losses
    assert with_it.losses[-1] < with_it.losses[0]
    assert with_it.weights.keys() == plain.weights.keys()


def test_the_result_has_full_attention(tmp_path: Path) -> None:
    longlora = {"name": "longlora", "group_size": 8}
    it = go(tmp_path, longlora, training={"max_steps": 1}, adapter="full")
    assert "longlora" not in (it.folder / "run/model/config.json").read_text("utf-8")


@pytest.mark.parametrize(
    ("stage", "problem"),
    [
        ({"name": "sft", "packing": True}, "groups of longlora would join tokens of different"),
        ("dpo", "dpo compares what the model computes in training with full attention"),
    ],
)
def test_what_cannot_work(stage: Any, problem: str) -> None:
    recipe = {
        "model": "tiny",
        "family": "qwen",
        "template": "chatml",
        "data": [{"path": "x.jsonl"}],
        "stage": stage,
        "accelerators": ["longlora"],
        "output": "out",
    }
    with pytest.raises(RecipeError, match=problem):
        resolve(recipe)
