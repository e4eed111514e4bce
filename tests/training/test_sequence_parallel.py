"""Sequences that two ranks share: the losses, gradients and training of one process."""

import json

import pytest
import torch
from accelerators_setup import asked, go, on_two_processes
from transformers import LlamaConfig, Qwen3NextConfig

from tunewright import RecipeError, check
from tunewright.source import RecipeProblems
from tunewright_sequence_parallel import SequenceParallel
from tunewright_sequence_parallel.limits import check_config
from tunewright_sequence_parallel.sharding import SequenceSharding

TWO = {"launch": {"processes": 2}}
SIX = {"hidden_size": 60, "num_attention_heads": 6}


@pytest.mark.parametrize("method", ["ulysses", "allgather"])
def test_losses_and_gradients_are_those_of_whole_sequences(method):
    found = on_two_processes("sequence_worker.py", method)
    assert len(found) == 15
    assert {name: apart for name, (apart, _) in found.items() if apart > 1e-5} == {}
    tokens = {name.partition(", ")[2]: count for name, (_, count) in found.items()}
    assert tokens == {"even": 4, "odd": 4, "packed": 7, "one": 1, "two of three": 3}


SETTINGS = {
    "padded": ("ulysses", {}),
    "packed, sharded": ("ulysses", {"stage": {"name": "sft", "packing": True}}, "fsdp"),
    "packed, sliding window": (
        "allgather",
        {"stage": {"name": "sft", "packing": True}, "family": {"name": "mistral"}},
    ),
    "lora, packed, recomputed": (
        "ulysses",
        {
            "stage": {"name": "sft", "packing": True},
            "adapter": {"name": "lora", "dropout": 0.0},
            "training": {"activation_checkpointing": True},
        },
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", SETTINGS)
def test_two_ranks_train_as_one(tmp_path, case):
    method, sections, *others = SETTINGS[case]
    training = {
        "eval_steps": 2,
        "gradient_accumulation_steps": 2,
        "per_device_train_batch_size": 2,
    }
    sections = sections | {
        "eval_data": {"held_out": asked(tmp_path / "rows")["data"]},
        "training": training | sections.get("training", {}),
    }
    one = go(tmp_path / "one", **sections)
    accelerators = [{"name": "sequence_parallel", "method": method}, *others]
    two = on_two_processes(
        "accelerators_worker.py", tmp_path / "two", json.dumps(accelerators), json.dumps(sections)
    )
    assert len(two) == len(one.metrics) > 4
    for mine, right in zip(two, one.metrics, strict=True):
        assert mine == pytest.approx(right, rel=1e-5)
    config = "run/model/config.json"
    if (tmp_path / "one" / config).exists():
        assert (tmp_path / "two" / config).read_text() == (tmp_path / "one" / config).read_text()


def test_each_label_is_predicted_by_one_rank():
    labels = torch.arange(100, 107)[None]
    own = [
        SequenceSharding("ulysses", 3, rank).own_labels({"labels": labels})["labels"]
        for rank in range(3)
    ]
    kept = [(each != -100).nonzero()[:, 1].tolist() for each in own]
    assert kept == [[0, 1, 2, 3], [4, 5, 6], []]


@pytest.mark.parametrize(
    ("options", "more", "message"),
    [
        ({}, {}, "sequence_parallel needs several processes, and there is one"),
        ({"size": 3}, TWO, r"size: is 3, and 2 processes cannot be split"),
        (
            {},
            {"stage": "dpo", **TWO},
            "dpo needs log-probabilities of whole sequences",
        ),
        (
            {},
            {"adapter": {"name": "prompt_tuning", "virtual_tokens": 4}, **TWO},
            "cannot split the virtual tokens of adapter prompt_tuning",
        ),
        (
            {},
            {"family": {"attention": "eager"}, **TWO},
            "family.attention: is eager, and sequence_parallel computes attention by sdpa",
        ),
    ],
)
def test_what_cannot_work_is_refused_by_the_check(tmp_path, monkeypatch, options, more, message):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    recipe = asked(tmp_path, {"name": "sequence_parallel", **options}, **more)
    with pytest.raises(RecipeProblems, match=message):
        check.resolve(recipe)


@pytest.mark.parametrize(
    ("config", "options", "size", "message"),
    [
        (Qwen3NextConfig(num_hidden_layers=2), {}, 2, r"layers \(linear_attention\) of whole"),
        (
            LlamaConfig(**SIX),
            {},
            4,
            "4 ranks cannot share 6 query heads and 6 key",
        ),
        (LlamaConfig(num_key_value_heads=1), {}, 2, "cannot share 32 query heads and 1 key heads"),
    ],
)
def test_models_that_cannot_be_split_are_refused(config, options, size, message):
    with pytest.raises(RecipeError, match=message):
        check_config(config, SequenceParallel.Options(**options), size)


def test_any_number_of_heads_can_be_gathered():
    gathered = SequenceParallel.Options(method="allgather")
    check_config(LlamaConfig(**SIX, num_key_value_heads=1), gathered, 4)
