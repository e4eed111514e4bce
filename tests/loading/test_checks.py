"""Checks of a loaded model before training: finite weights, vocabulary, positions."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from loading_setup import edit_json, load, said, save
from pydantic import ValidationError

from tunewright import RunError
from tunewright_conformance.doubles import FakeRun
from tunewright_hf.models.checks import check_finite, check_fit
from tunewright_qwen import Qwen


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_that_are_no_numbers(
    run: FakeRun, tmp_path: Path, value: float, dtype: str
) -> None:
    loaded = load(run, dtype=dtype)
    name, last = list(loaded.model.named_parameters())[-1]
    last.data.view(-1)[-1] = value
    with pytest.raises(RunError, match="holds numbers that are not finite") as caught:
        load(run, str(save(loaded, tmp_path)))
    assert name in str(caught.value)
    assert caught.value.place == str(tmp_path)


def test_large_weights_are_numbers(run: FakeRun) -> None:
    """Their sum would be none."""
    model = load(run).model
    next(model.parameters()).data.fill_(torch.finfo(torch.float32).max)
    check_finite(model, "here")


# ---- vocabulary ----------------------------------------------------------------------------------


def test_tokens_without_embeddings(run: FakeRun, tmp_path: Path) -> None:
    """The usual mistake: tokens were added, and the embeddings are as they were."""
    loaded = load(run)
    rows = loaded.model.get_input_embeddings().num_embeddings
    loaded.tokenizer.add_tokens(["<sql>", "</sql>"])
    save(loaded, tmp_path)
    with pytest.raises(RunError) as caught:
        load(run, str(tmp_path))
    assert f"ids up to {rows + 1} (<sql>, </sql>)" in str(caught.value)
    assert "resize_token_embeddings" in caught.value.hint
    loaded.model.resize_token_embeddings(len(loaded.tokenizer))
    save(loaded, tmp_path)
    assert len(load(run, str(tmp_path)).tokenizer) == rows + 2


def test_pad_token_without_embedding(run: FakeRun, tmp_path: Path) -> None:
    """As some Llama 2 checkpoints have it: another token pads, and nothing is refused."""
    loaded = load(run)
    rows = loaded.model.get_input_embeddings().num_embeddings
    loaded.tokenizer.pad_token = "<pad>"
    save(loaded, tmp_path)
    found = load(run, str(tmp_path))
    assert found.tokenizer.pad_token_id < rows
    assert "no embedding for its pad token <pad>" in said(run)


def test_an_empty_pad_token_is_none(run: FakeRun, checkpoint: Path) -> None:
    edit_json(checkpoint / "tokenizer_config.json", pad_token="")
    assert load(run, str(checkpoint)).tokenizer.pad_token in ("<|endoftext|>", "<|im_end|>")
    assert "has no pad token" in said(run)


def test_placeholder_of_pictures_without_embedding(run: FakeRun, tmp_path: Path) -> None:
    """Gemma 3 1B knows only text, and has the tokenizer of its line."""
    loaded = load(run)
    loaded.tokenizer.add_special_tokens({"additional_special_tokens": ["<image_soft_token>"]})
    save(loaded, tmp_path)
    edit_json(
        tmp_path / "tokenizer_config.json",
        extra_special_tokens={"image_token": "<image_soft_token>"},
    )
    load(run, str(tmp_path))


def test_the_tokenizer_alone_is_not_compared(run: FakeRun, tmp_path: Path) -> None:
    loaded = load(run)
    loaded.tokenizer.add_tokens(["<sql>"])
    save(loaded, tmp_path)
    assert load(run, str(tmp_path), weights="none").model is None


# ---- positions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("twin", "limit"), [("qwen3", 4096), ("gpt2", 1024), ("llama2", 4096)])
def test_rows_longer_than_positions(run: FakeRun, twin: str, limit: int) -> None:
    loaded = load(run, twin=twin)
    check_fit(loaded, limit)
    with pytest.raises(RunError) as caught:
        check_fit(loaded, limit + 1)
    assert caught.value.place == "training.max_length"
    assert f"set training.max_length to {limit} or less" in caught.value.hint


@pytest.mark.parametrize(
    "parameters",
    [
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024},
        {"rope_type": "linear", "factor": 2.0},
        {"rope_type": "dynamic", "factor": 2.0},
    ],
)
def test_scaled_positions_have_no_such_end(run: FakeRun, tmp_path: Path, parameters: Any) -> None:
    loaded = load(run)
    save(loaded, tmp_path)
    own = json.loads((tmp_path / "config.json").read_text())["rope_parameters"]
    edit_json(tmp_path / "config.json", rope_parameters=own | parameters)
    check_fit(load(run, str(tmp_path)), 10**6)


# ---- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"num_hidden_layers": 10**6}, "num_hidden_layers is 1000000, more than 100,000"),
        ({"num_hidden_layers": 50_000, "layer_types": None}, "50000, the weights are"),
        ({"num_labels": 10**12}, "num_labels is 1000000000000"),
        ({"sub": {"n_experts": 10**9}}, "n_experts is 1000000000"),
        ({"vocab_size": 10**9}, "describes a model of"),
        ({"intermediate_size": 10**8}, "describes a model of"),
        ({"head_dim": 2 * 10**7}, "describes a model of"),
    ],
)
def test_a_config_of_a_huge_model(
    run: FakeRun, checkpoint: Path, change: dict[str, Any], problem: str
) -> None:
    """Memory would be taken for all of it before shapes are compared."""
    path = checkpoint / "config.json"
    config = json.loads(path.read_text()) | change
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    with pytest.raises(RunError) as caught:
        load(run, str(checkpoint))
    assert problem in str(caught.value)
    assert caught.value.place == str(path)


@pytest.mark.parametrize(
    "options",
    [{"tiny_hidden_size": 16 * 10**6}, {"tiny_layers": 10**6}, {"tiny_layers": 0}],
)
def test_a_huge_twin_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Qwen.Options(**options)
