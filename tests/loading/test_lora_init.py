"""Initialisations of LoRA from data and from quantization errors: EVA, CorDA, LoRA-GA, LoftQ."""

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from loading_setup import apply, load, logits, train, trainable

from tunewright import RecipeError
from tunewright.check import resolve
from tunewright.run import Run
from tunewright.types import Data, LoadedModel
from tunewright_conformance.doubles import FakeRun
from tunewright_hf.models.export import save_result
from tunewright_lora import Lora

FROM_DATA = ["eva", "corda", "corda_kpm", "lora_ga"]
CHANGE_BASE = ["corda", "corda_kpm", "lora_ga"]


def lora(**options: Any) -> Lora:
    return Lora(Lora.Options(**{"rank": 4, **options}), "lora")


def rows(count: int = 12, length: int = 24) -> Data:
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 200, (count, length), generator=draw).tolist()
    labels = [[-100] * 4 + each[4:] for each in ids]
    return Data(datasets.Dataset.from_dict({"input_ids": ids, "labels": labels}))


def begun(run: FakeRun, init: str, twin: str = "qwen3", **options: Any) -> LoadedModel:
    plugin = lora(init=init, **options)
    loaded = apply(run, plugin, load(run, twin=twin))
    return plugin.prepare_adapter(run, loaded, rows())


@pytest.mark.parametrize("init", FROM_DATA)
@pytest.mark.parametrize("twin", ["qwen3", "gpt2"])
def test_begins_as_the_model(run: FakeRun, init: str, twin: str) -> None:
    loaded, plain = begun(run, init, twin), apply(run, lora(), load(run, twin=twin))
    torch.testing.assert_close(logits(loaded), logits(load(run, twin=twin)), atol=2e-5, rtol=1e-4)
    assert loaded.trained == trainable(loaded)
    assert all("lora_" in name for name in trainable(loaded))
    assert {each.dtype for _, each in loaded.model.named_parameters()} == {torch.float32}
    before, after = (dict(each.model.named_parameters()) for each in (plain, loaded))
    moved = [n for n in before.keys() & after.keys() if "lora_A" in n]
    assert moved
    assert not any(
        before[name].shape == after[name].shape and torch.equal(before[name], after[name])
        for name in moved
    )


@pytest.mark.parametrize("init", FROM_DATA)
def test_is_deterministic(run: FakeRun, init: str) -> None:
    """A resumed run begins with the same base weights and shapes."""
    state = torch.get_rng_state()
    one, same = (begun(run, init).model.state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert one.keys() == same.keys()
    assert all(torch.equal(one[name], same[name]) for name in one)


@pytest.mark.parametrize("init", FROM_DATA)
def test_saved_for_the_original_weights(run: FakeRun, init: str, tmp_path: Path) -> None:
    """Trained, saved and loaded, here and in plain PEFT, it says the same; merged too."""
    from peft import PeftModel

    loaded = begun(run, init, modules_to_save=["norm"])
    train(loaded)
    learned = logits(loaded)
    assert not torch.allclose(learned, logits(load(run)), atol=0.1)
    save_result(loaded, tmp_path)
    theirs = PeftModel.from_pretrained(load(run).model, tmp_path)
    torch.testing.assert_close(logits(LoadedModel(theirs, None)), learned, atol=2e-5, rtol=1e-4)
    assert theirs.peft_config["default"].r == (8 if init in CHANGE_BASE else 4)
    again = lora().load_external(load(run), tmp_path)
    torch.testing.assert_close(logits(again), learned, atol=2e-5, rtol=1e-4)
    merged = lora().merge(again)
    torch.testing.assert_close(logits(merged), learned, atol=2e-5, rtol=1e-4)


def test_eva_gives_ranks_to_layers(run: FakeRun) -> None:
    loaded = begun(run, "eva", loraplus_ratio=4)
    ranks = [len(each) for name, each in loaded.model.named_parameters() if "lora_A" in name]
    assert 1 <= min(ranks) < 4 < max(ranks) <= 8
    assert set(loaded.learning_rate_scales) == {n for n in trainable(loaded) if "lora_B" in n}
    even = begun(run, "eva", eva_rho=1)
    assert {len(p) for name, p in even.model.named_parameters() if "lora_A" in name} == {4}


def test_eva_of_too_little_data(run: FakeRun) -> None:
    plugin = lora(init="eva")
    loaded = apply(run, plugin)
    with pytest.raises(RecipeError, match="the data is too small for eva: a batch needs 8 trained"):
        plugin.prepare_adapter(run, loaded, rows(count=1, length=6))


@pytest.mark.parametrize("init", FROM_DATA)
def test_not_again_for_a_trained_adapter(run: FakeRun, init: str, tmp_path: Path) -> None:
    plugin = lora(init=init)
    loaded = begun(run, init)
    save_result(loaded, tmp_path)
    again = apply(run, plugin, adapter_path=tmp_path)
    before = {name: each.clone() for name, each in again.model.named_parameters()}
    prepared = plugin.prepare_adapter(run, again, rows())
    assert prepared.model is again.model
    assert all(torch.equal(each, before[n]) for n, each in again.model.named_parameters())


RECIPE: dict[str, Any] = {
    "model": "tiny",
    "family": {"name": "qwen", "device": "cpu"},
    "template": "chatml",
    "data": [{"path": "x.jsonl"}],
    "stage": "sft",
    "output": "out",
    "training": {"precision": "fp32"},
}


def test_loftq_makes_up_for_rounding(tmp_path: Path) -> None:
    from peft import PeftModel

    def quantized(**options: Any) -> Run:
        adapter = {"name": "lora", "rank": 8, "alpha": 24, **options}
        return Run(resolve(RECIPE | {"quantizer": "bitsandbytes", "adapter": adapter}))

    run = quantized(init="loftq")
    loaded = run.prepare_adapter(run.load(), rows())
    exact = logits(Run(resolve(RECIPE)).load(trainable=False))
    rounded = logits(quantized().load())
    error, corrected = ((each - exact).norm() for each in (rounded, logits(loaded)))
    assert corrected < 0.9 * error
    train(loaded)
    save_result(loaded, tmp_path)
    theirs = PeftModel.from_pretrained(quantized().load().model.unload(), tmp_path)
    assert torch.equal(logits(LoadedModel(theirs, None)), logits(loaded))


@pytest.mark.parametrize(
    ("recipe", "problem"),
    [
        (
            {"quantizer": "bitsandbytes", "adapter": {"name": "lora", "init": "corda"}},
            "corda changes the base weights, which bitsandbytes quantizes",
        ),
        (
            {"adapter": {"name": "lora", "init": "loftq"}},
            "quantizes while loading, and there is none",
        ),
        (
            {
                "quantizer": "bitsandbytes",
                "adapter": {"name": "lora", "init": "loftq"},
                "stage": {"name": "dpo", "cache_reference": False},
            },
            "the reference model of dpo would be the quantized model",
        ),
        (
            {"adapter": {"name": "lora", "init": "lora_ga"}, "stage": "reward"},
            "lora_ga needs gradients of replies, which reward",
        ),
        (
            {"adapter": {"name": "lora", "init": "eva", "experts": True}},
            "init eva is for linear layers",
        ),
    ],
)
def test_what_cannot_work(recipe: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        resolve(RECIPE | recipe)
