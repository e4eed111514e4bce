"""Tests for stages: the loss falls, and equivalent settings give equal results."""

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from tunewright.registry import Entry, load
from tunewright_conformance.subjects import example_options
from tunewright_conformance.suite import Suite
from tunewright_conformance.trial import Trial, check_resumed, go, recipe


class TestStage(Suite):
    kinds = ("stage",)

    def test_loss_falls(self, entry: Entry, tmp_path: Path) -> None:
        """A dozen epochs over a dozen simple rows reduce the loss by a third. For stages that
        generate, the loss says nothing about quality: there the reward, which is below 0, rises by
        a tenth of its distance to 0."""
        trial = run(entry, tmp_path, 12, epochs=12)
        assert trial.result is not None
        assert trial.result.steps == len(trial.logged)
        if rows(entry) == "prompts":
            rewards = trial.metric("reward")
            assert sum(rewards[-3:]) / 3 > 0.9 * rewards[0]
        else:
            assert sum(trial.losses[-3:]) / 3 < 0.67 * trial.losses[0]

    def test_accumulation(self, entry: Entry, tmp_path: Path) -> None:
        """A batch of four rows, and four accumulated batches of one, train the same."""
        at_once = run(entry, tmp_path / "4x1", 4, max_steps=3)
        by_one: dict[str, Any] = {
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 4,
        }
        one_by_one = run(entry, tmp_path / "1x4", 4, max_steps=3, **by_one)
        check_same(one_by_one, at_once)

    def test_packing(self, entry: Entry, tmp_path: Path) -> None:
        """Packed rows train the same as unpacked ones: they do not attend to each other."""
        if "packing" not in load(entry).Options.model_fields:
            pytest.skip("it has no option `packing`")
        apart = run(entry, tmp_path / "apart", 4, max_steps=3, max_length=256)
        packed = run(entry, tmp_path / "packed", 4, {"packing": True}, max_steps=3, max_length=256)
        check_same(packed, apart)

    def test_seed(self, entry: Entry, tmp_path: Path) -> None:
        """The same recipe trains the same weights, bit for bit."""
        import torch

        # few rows per batch: another order gives another result, not only another order of sums
        settings: dict[str, Any] = {"max_steps": 4, "per_device_train_batch_size": 1}
        one, same = (
            run(entry, tmp_path / name, 24, **settings).weights() for name in ("one", "same")
        )
        assert one.keys() == same.keys()
        assert not [name for name in one if not torch.equal(one[name], same[name])]

    def test_resume(self, entry: Entry, tmp_path: Path) -> None:
        """Stopped in the middle of an epoch and resumed, the run ends with the same bits: weights,
        optimizer, sampler and random states, and the metrics of every step."""
        settings: dict[str, Any] = {
            "max_steps": 7,
            "save_steps": 7,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 2,
        }
        whole = run(entry, tmp_path / "whole", 10, **settings)
        asked = recipe(section(entry), rows(entry), tmp_path / "stopped", 10, **settings)
        check_resumed(whole, go(asked, stop_at=4), go(asked, resume=True))


def rows(entry: Entry) -> str:
    sort: str = load(entry).rows
    return sort


def run(
    entry: Entry, folder: Path, count: int, options: dict[str, Any] | None = None, **training: Any
) -> Trial:
    return go(recipe({**section(entry), **(options or {})}, rows(entry), folder, count, **training))


def section(entry: Entry) -> dict[str, Any]:
    """The stage's section of a recipe, with required settings: those of its examples; a stage on
    prompts needs a reward, and short completions."""
    if rows(entry) != "prompts":
        given = example_options(load(entry)).model_dump(mode="json", exclude_unset=True)
        return {"name": entry.name, **given}
    if not entry_points(group="tunewright.reward", name="length"):
        pytest.skip("it needs the reward `length`: pip install tunewright-rewards")
    asked = {
        "rewards": [{"name": "length", "target": 40}],
        "max_new_tokens": 8,
        "num_generations": 4,
        "ppo_epochs": 1,
    }
    return {
        "name": entry.name,
        **{name: asked[name] for name in asked.keys() & load(entry).Options.model_fields.keys()},
    }


def check_same(found: Trial, expected: Trial) -> None:
    """Check for the same losses and weights, up to the order of sums in float32, which Adam
    amplifies in elements whose gradient is about 0."""
    assert found.losses == pytest.approx(expected.losses, rel=1e-4, abs=1e-6)
    weights, right = found.weights(), expected.weights()
    assert weights.keys() == right.keys()
    for name, value in right.items():
        apart = float((weights[name] - value).norm() / value.norm())
        assert apart < 1e-3, f"{name} differs by {apart:.1e} of its norm"
