"""Every PEFT adapter: what is saved loads in plain PEFT, and what PEFT saved loads here."""

from pathlib import Path
from typing import Any

import pytest
import torch
from loading_setup import apply, load, logits, train, trainable

from tunewright import RecipeError, RunError, check, registry
from tunewright.types import LoadedModel
from tunewright_conformance.doubles import FakeRun

#: adapter → options for a tiny twin, which has layers 64 wide
CASES: dict[str, dict[str, Any]] = {
    "boft": {},
    "fourierft": {"frequencies": 50},
    "hra": {"rank": 4},
    "ia3": {},
    "lora": {"rank": 4},
    "miss": {"rank": 8},
    "oft": {"block_size": 8},
    "prefix_tuning": {"virtual_tokens": 3},
    "prompt_tuning": {"virtual_tokens": 3},
    "trainable_tokens": {"tokens": ["a", "e"]},
    "vera": {"rank": 16},
}


def plugin(name: str, **options: Any) -> Any:
    found = registry.load(registry.find("adapter", name))
    return found(found.Options(**options), name)


@pytest.fixture(params=CASES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def trained(run: FakeRun, name: str, **request: Any) -> LoadedModel:
    loaded = apply(run, plugin(name, **CASES[name]), **request)
    train(loaded)
    return loaded


def save(loaded: LoadedModel, folder: Path) -> None:
    """As a run saves it."""
    loaded.model.save_pretrained(folder, save_embedding_layers=False)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")  # of plain PEFT
def test_loads_in_plain_peft(run: FakeRun, name: str, tmp_path: Path) -> None:
    from peft import PeftModel

    ours = trained(run, name)
    save(ours, tmp_path)
    theirs = PeftModel.from_pretrained(load(run).model, tmp_path)
    assert torch.equal(logits(LoadedModel(theirs, None)), logits(ours))
    assert not torch.equal(logits(ours), logits(apply(run, plugin(name, **CASES[name]))))


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")  # of plain PEFT
def test_loads_what_plain_peft_saved(run: FakeRun, name: str, tmp_path: Path) -> None:
    from peft import PeftModel

    ours = trained(run, name)
    save(ours, tmp_path / "ours")
    theirs = PeftModel.from_pretrained(load(run).model, tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "it", save_embedding_layers=False)
    again = plugin(name).load_external(load(run), tmp_path / "it")
    assert torch.equal(logits(again), logits(ours))
    assert not trainable(again)


def test_merged_it_says_the_same(run: FakeRun, name: str) -> None:
    ours = trained(run, name)
    expected = logits(ours)
    if "prefix" in name or "prompt" in name:
        with pytest.raises(RunError, match="cannot be merged: it adds tokens, not weights"):
            plugin(name).merge(ours)
        return
    merged = plugin(name).merge(ours)
    assert merged.saves == "model"
    assert merged.model.state_dict().keys() == load(run).model.state_dict().keys()
    torch.testing.assert_close(logits(merged), expected, atol=1e-5, rtol=1e-5)


def test_only_the_adapter_is_trained(run: FakeRun, name: str) -> None:
    loaded = apply(run, plugin(name, **CASES[name]))
    base = {each for each, _ in load(run).model.named_parameters()}
    names = {each.removeprefix("base_model.").removeprefix("model.") for each in trainable(loaded)}
    assert names
    assert not names & base
    assert loaded.trained == trainable(loaded)


def test_a_reward_model_has_its_head_beside_it(run: FakeRun, name: str) -> None:
    if name == "trainable_tokens":
        pytest.skip("it leaves heads out, and says so before anything loads")
    if "tuning" in name:
        pytest.skip("virtual tokens and a head on the last token are not tried together")
    loaded = apply(run, plugin(name, **CASES[name]), load(run, head="score"), head="score")
    assert any("score" in each for each in trainable(loaded))


def test_butterflies_of_more_factors_need_the_extension(run: FakeRun) -> None:
    if torch.cuda.is_available():
        pytest.skip("PEFT compiles its extension here")
    with pytest.raises(RecipeError, match="butterfly_factors: is 2, and PEFT's CUDA extension"):
        apply(run, plugin("boft", butterfly_factors=2))


def test_ia3_scales_the_inputs_of_the_second_layer_of_mlps(run: FakeRun) -> None:
    loaded = apply(run, plugin("ia3"))
    shapes = {
        each.split(".")[-3]: tuple(parameter.shape)
        for each, parameter in loaded.model.named_parameters()
        if "ia3" in each
    }
    assert shapes["down_proj"][0] == 1  # (1, inputs)
    assert shapes["q_proj"][1] == 1  # (outputs, 1)


@pytest.mark.parametrize("name", ["prompt_tuning", "prefix_tuning"])
def test_virtual_tokens_are_not_packed(name: str) -> None:
    recipe = {
        "model": "tiny",
        "family": "qwen",
        "template": "chatml",
        "adapter": name,
        "data": [{"path": "x.jsonl"}],
        "stage": {"name": "sft", "packing": True},
        "output": "out",
    }
    with pytest.raises(RecipeError, match=r"stage.*packing: the virtual tokens of p\w+_tuning"):
        check.resolve(recipe)
