"""Spectrum: matrices with signal are found, and trained with embeddings and head."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from loading_setup import apply, load, logits, train, trainable

from tunewright import RecipeError
from tunewright.types import LoadedModel
from tunewright_conformance.doubles import FakeRun
from tunewright_hf.models.export import save_result
from tunewright_spectrum import Spectrum
from tunewright_spectrum.selection import signal_to_noise

OUTER = {"model.embed_tokens.weight", "lm_head.weight"}
TYPES = {f"self_attn.{each}_proj" for each in "qkvo"} | {
    f"mlp.{each}_proj" for each in ("gate", "up", "down")
}


def spectrum(**options: Any) -> Spectrum:
    return Spectrum(Spectrum.Options(**options), "spectrum")


def four(run: FakeRun, twin: str = "llama3", **request: Any) -> LoadedModel:
    return load(run, twin=twin, options={"tiny_layers": 4}, **request)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def plant(weight: torch.Tensor) -> None:
    """Add a signal of rank 2 to a matrix."""
    with torch.no_grad():
        weight += noise(weight.shape[0], 2) @ noise(2, weight.shape[1]) * weight.std() * 5


def test_ratio_by_hand() -> None:
    values = torch.tensor([10.0, 4.0, 3.0, 2.0, 1.0])
    left, _ = torch.linalg.qr(noise(6, 5))
    right, _ = torch.linalg.qr(noise(5, 5))
    # quartiles 2 and 4: sigma 1.483, threshold 1.483 * (1 + sqrt(5 / 6)) = 2.836
    expected = (10 + 4 + 3) / (2 + 1) / 10
    found = signal_to_noise(left @ torch.diag(values) @ right)
    assert math.isclose(found, expected, rel_tol=1e-4)
    assert math.isclose(signal_to_noise((left @ torch.diag(values) @ right).T), found, rel_tol=1e-4)


def test_a_signal_raises_the_ratio() -> None:
    weight = noise(96, 64)
    alone = signal_to_noise(weight)
    assert math.isclose(signal_to_noise(3 * weight) * 3, alone, rel_tol=1e-4)
    plain = torch.linalg.svdvals(weight)[0]
    plant(weight)
    assert signal_to_noise(weight) * torch.linalg.svdvals(weight)[0] > alone * plain


@pytest.mark.parametrize(("fraction", "count"), [(0.1, 1), (0.25, 1), (0.5, 2), (0.75, 3), (1, 4)])
def test_a_share_of_each_type_is_trained(run: FakeRun, fraction: float, count: int) -> None:
    loaded = apply(run, spectrum(top_fraction=fraction), four(run))
    assert trainable(loaded) >= OUTER
    chosen = [name.split(".", 3)[3] for name in trainable(loaded) - OUTER]
    assert {kind: chosen.count(f"{kind}.weight") for kind in TYPES} == dict.fromkeys(TYPES, count)
    assert len(chosen) == count * len(TYPES)
    assert loaded.trained == trainable(loaded)


def test_the_ratio_decides(run: FakeRun) -> None:
    made = four(run)
    ratios = {
        number: signal_to_noise(layer.mlp.up_proj.weight)
        for number, layer in enumerate(made.model.model.layers)
    }
    best = sorted(ratios, key=lambda number: -ratios[number])[:2]
    options = {"modules": ["up_proj"], "train_embeddings": False}
    loaded = apply(run, spectrum(**options), made)
    assert trainable(loaded) == {f"model.layers.{n}.mlp.up_proj.weight" for n in best}


def test_trained_and_saved(run: FakeRun, tmp_path: Path) -> None:
    loaded = apply(run, spectrum(), four(run))
    before = {name: each.detach().clone() for name, each in loaded.model.named_parameters()}
    train(loaded)
    moved = {
        name
        for name, each in loaded.model.named_parameters()
        if not torch.equal(each, before[name])
    }
    assert moved == trainable(loaded)
    save_result(loaded, tmp_path)
    assert torch.equal(logits(load(run, str(tmp_path), twin="llama3")), logits(loaded))


@pytest.mark.parametrize("twin", ["qwen3_moe", "gpt2", "qwen2_moe"])
def test_other_architectures(run: FakeRun, twin: str) -> None:
    loaded = apply(run, spectrum(top_fraction=0.5), four(run, twin))
    assert not any("gate.weight" in name and "experts" not in name for name in trainable(loaded))
    numbers = {
        int(part) for name in trainable(loaded) for part in name.split(".") if part.isdigit()
    }
    assert numbers <= {0, 1, 2, 3} and numbers


def test_a_reward_model_has_its_head(run: FakeRun) -> None:
    loaded = apply(run, spectrum(), four(run, head="score"), head="score")
    assert "score.weight" in trainable(loaded)


def test_mistakes(run: FakeRun) -> None:
    with pytest.raises(RecipeError, match="the model has no module 'up'"):
        apply(run, spectrum(modules=["up"]), four(run))
    quantized = four(run)
    quantized.quantized = frozenset({"model.layers.0.mlp.up_proj"})
    with pytest.raises(RecipeError, match="up_proj is quantized and cannot be trained"):
        apply(run, spectrum(), quantized)
