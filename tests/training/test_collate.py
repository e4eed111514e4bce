"""Batches: padded, and packed rows that do not see each other."""

import pytest
import torch
from training_setup import SIZE, model, qwen, rows
from transformers import AutoConfig, AutoModelForCausalLM, Qwen3NextConfig

from tunewright import RecipeError
from tunewright_hf.batching.collators import Packed, Padded, check_packing, check_rows_apart, tokens
from tunewright_hf.losses.causal_lm import CausalLoss

ROWS = [
    {"input_ids": [5, 6, 7], "labels": [5, -100, 7], "loss_weights": None},
    {"input_ids": [8, 9], "labels": [8, 9], "loss_weights": [0.0, 0.5]},
]


def lists(batch):
    return {name: each.tolist() for name, each in batch.items()}


def test_padded():
    batch = Padded(pad_id=1, multiple=4)(ROWS)
    assert lists(batch.pop("inputs") | batch) == {
        "input_ids": [[5, 6, 7, 1], [8, 9, 1, 1]],
        "labels": [[5, -100, 7, -100], [8, 9, -100, -100]],
        "attention_mask": [[1, 1, 1, 0], [1, 1, 0, 0]],
        "loss_weights": [[1, 1, 1, 0], [0, 0.5, 0, 0]],
    }


def test_packed_has_no_mask_and_positions_that_restart():
    batch = Packed()(ROWS)
    assert batch["inputs"].keys() == {"input_ids", "position_ids"}
    assert lists(batch.pop("inputs") | batch) == {
        "input_ids": [[5, 6, 7, 8, 9]],
        "labels": [[-100, -100, 7, -100, 9]],
        "position_ids": [[0, 1, 2, 0, 1]],
        "loss_weights": [[1, 1, 1, 0, 0.5]],
    }


def test_tokens_leave_padding_out():
    assert tokens(Padded(0)(ROWS)) == tokens(Packed()(ROWS)) == 5
    assert "loss_weights" not in Padded(0)(ROWS[:1])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("config", [None, qwen], ids=["llama", "qwen3"])
@pytest.mark.parametrize("weighted", [False, True])
def test_packed_equals_padded_in_loss_and_gradients(config, attention, weighted):
    made = model(config and config(), attention)
    data = list(rows(6, weighted=weighted))
    results = []
    for batch in (Padded(0)(data), Packed()(data)):
        labels, weights = batch.pop("labels"), batch.pop("loss_weights", None)
        made.zero_grad()
        loss, _ = CausalLoss(made)(made, batch["inputs"], labels, weights)
        loss.backward()
        results.append((loss.detach(), [each.grad.clone() for each in made.parameters()]))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


def test_packing_is_refused_where_layers_carry_a_state():
    check_packing(model().config)
    check_packing(AutoConfig.for_model("gemma2", **SIZE))
    with pytest.raises(RecipeError, match="linear_attention"):
        check_packing(Qwen3NextConfig(**SIZE, layer_types=["linear_attention", "full_attention"]))


@pytest.mark.parametrize("name", ["bloom", "falcon"])
def test_packing_is_refused_where_rows_see_each_other(name):
    """If this fails, transformers has fixed the class."""
    check_rows_apart(model())
    config = AutoConfig.for_model(
        name, vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=4
    )
    with pytest.raises(RecipeError, match="lets packed rows see each other"):
        check_rows_apart(AutoModelForCausalLM.from_config(config))
