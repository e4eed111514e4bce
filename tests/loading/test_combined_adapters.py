"""Several adapters combined into one: their weighted sum, saved as PEFT saves an adapter."""

from pathlib import Path
from typing import Any

import pytest
import torch
from loading_setup import apply, edit_json, load, logits, trainable

from tunewright import RunError
from tunewright.types import LoadedModel
from tunewright_conformance.doubles import FakeRun
from tunewright_hf.models.export import save_result
from tunewright_hf.models.peft_combine import combined
from tunewright_lora import Lora

WEIGHTS = (0.7, -0.4)


def lora(**options: Any) -> Lora:
    return Lora(Lora.Options(**options), "lora")


def saved(run: FakeRun, folder: Path, seed: int, **options: Any) -> Path:
    """An adapter with random matrices."""
    loaded = apply(run, lora(**options))
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, each in sorted(loaded.model.named_parameters()):
            if each.requires_grad:
                each.copy_(torch.randn(each.shape, generator=draw) / 10)
    save_result(loaded, folder)
    return folder


def deltas(run: FakeRun, folder: Path) -> dict[str, torch.Tensor]:
    """What an adapter adds to each weight."""
    base = dict(load(run).model.named_parameters())
    merged = lora().merge(lora().load_external(load(run), folder)).model
    return {name: each - base[name] for name, each in merged.named_parameters()}


def of_combined(run: FakeRun, loaded: LoadedModel) -> dict[str, torch.Tensor]:
    base = dict(load(run).model.named_parameters())
    merged = lora().merge(loaded).model
    return {name: each - base[name] for name, each in merged.named_parameters()}


@pytest.mark.parametrize(
    "options",
    [
        ({"rank": 4}, {"rank": 2}),
        ({"rank": 4, "rslora": True}, {"rank": 4}),
        ({"rank": 4, "targets": ["q_proj"]}, {"rank": 4, "targets": ["up_proj", "q_proj"]}),
    ],
    ids=["ranks", "rslora", "targets"],
)
def test_is_the_weighted_sum(run: FakeRun, options: Any, tmp_path: Path) -> None:
    folders = [saved(run, tmp_path / str(n), n, **each) for n, each in enumerate(options)]
    parts = list(zip(folders, WEIGHTS, strict=True))
    loaded = combined(lora(), load(run), parts)
    assert not trainable(loaded)
    first, second = (deltas(run, folder) for folder in folders)
    found = of_combined(run, loaded)
    assert any(each.abs().max() > 0.01 for each in found.values())
    for name, each in found.items():
        expected = WEIGHTS[0] * first[name] + WEIGHTS[1] * second[name]
        torch.testing.assert_close(each, expected, atol=1e-5, rtol=1e-4)


def test_loads_in_plain_peft(run: FakeRun, tmp_path: Path) -> None:
    from peft import PeftModel

    folders = [saved(run, tmp_path / str(n), n, rank=4) for n in range(3)]
    loaded = combined(lora(), load(run), [(folder, 0.5) for folder in folders])
    save_result(loaded, tmp_path / "all")
    theirs = PeftModel.from_pretrained(load(run).model, tmp_path / "all")
    assert torch.equal(logits(LoadedModel(theirs, None)), logits(loaded))
    ours = lora().load_external(load(run), tmp_path / "all")
    assert torch.equal(logits(ours), logits(loaded))


@pytest.mark.parametrize("way", ["svd", "linear", "ties", "dare_ties", "dare_linear"])
def test_other_ways_keep_the_rank(run: FakeRun, way: Any, tmp_path: Path) -> None:
    parts = [(saved(run, tmp_path / str(n), n, rank=4), 0.5) for n in range(2)]
    made = [combined(lora(), load(run), parts, way, density=0.5) for _ in range(2)]
    assert made[0].model.peft_config["default"].r == 4
    assert torch.equal(*(logits(each) for each in made))  # DARE is seeded
    assert not torch.equal(logits(made[0]), logits(load(run)))


def test_one_adapter_of_weight_1_is_itself(run: FakeRun, tmp_path: Path) -> None:
    folder = saved(run, tmp_path / "it", 0, rank=4)
    loaded = combined(lora(), load(run), [(folder, 1.0)])
    alone = lora().load_external(load(run), folder)
    torch.testing.assert_close(logits(loaded), logits(alone), atol=1e-5, rtol=1e-5)


def test_what_cannot_be_combined(run: FakeRun, tmp_path: Path) -> None:
    plain = saved(run, tmp_path / "plain", 0, rank=4)
    dora = saved(run, tmp_path / "dora", 1, rank=4, dora=True)
    with pytest.raises(RunError, match="use_dora: holds more than low-rank matrices"):
        combined(lora(), load(run), [(plain, 1.0), (dora, 1.0)])
    grown = apply(run, lora(), load(run, options={"new_tokens": ["<plan>"]}))
    save_result(grown, tmp_path / "tokens")
    with pytest.raises(RunError, match="trainable_token_indices: holds more than low-rank"):
        combined(lora(), load(run), [(plain, 1.0), (tmp_path / "tokens", 1.0)])
    other = saved(run, tmp_path / "other", 1, rank=2)
    with pytest.raises(RunError, match=r"cannot be combined: .*same r"):
        combined(lora(), load(run), [(plain, 1.0), (other, 1.0)], "linear")
    edit_json(other / "adapter_config.json", r=4)
    with pytest.raises(RunError, match="other: does not fit the model"):
        combined(lora(), load(run), [(plain, 1.0), (other, 1.0)])
