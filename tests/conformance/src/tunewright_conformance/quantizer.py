"""Tests of every quantizer: it says what it quantizes and how many bytes that takes,
adapters learn on it, and merging gives a plain model that says the same."""

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from tunewright.check import resolve
from tunewright.registry import Entry, entries, load
from tunewright.run import Run
from tunewright.types import LoadedModel, StageResult
from tunewright_conformance import measure
from tunewright_conformance.adapter import batch, logits, train
from tunewright_conformance.bench import a_model, on_bench
from tunewright_conformance.refusals import Refusals, a_recipe, check_refused, with_plugin
from tunewright_conformance.trial import go, merged, recipe

ADAPTER = "lora"


class TestQuantizer(Refusals):
    kinds = ("quantizer",)
    anywhere = frozenset()  # `recipe check` tells what a quantizer lacks here

    sections = MappingProxyType({"adapter": ADAPTER})
    #: relative distance of a merged model's logits from those of base and adapter
    tolerance: float = 1e-5
    #: relative distance of the quantized model's logits from the plain model's
    max_error: float = 0.5
    #: relative, between weight_bytes and what is measured
    bytes_tolerance: float = 0.01
    #: of the runs in which LoRA is trained
    learning_rate_of_run: float = 2e-3
    #: stages that LoRA is trained in
    stages: Sequence[str] = ("sft", "dpo", "reward")

    @pytest.fixture
    def model(self) -> str:
        """The model of the recipes. Subclasses may give a folder with a quantized checkpoint."""
        return "tiny"

    @pytest.fixture
    def run(self, entry: Entry, options: dict[str, Any], model: str, tmp_path: Path) -> Run:
        """A run with the quantizer and LoRA."""
        need_adapter(ADAPTER)
        sections = fp32(self.given({"model": model}))
        return Run(resolve(a_recipe(entry, options, sections, tmp_path / "run")))

    @pytest.fixture
    def plain(self, model: str, tmp_path: Path) -> LoadedModel:
        """The same model without the quantizer and without an adapter."""
        return a_model(tmp_path, model)

    @pytest.fixture
    def trained(self, run: Run) -> LoadedModel:
        loaded = run.load()
        train(loaded)
        return loaded

    def test_says_what_is_quantized(self, run: Run, plain: LoadedModel) -> None:
        """LoadedModel.quantized names the modules whose weights take less memory than before, all
        of them and no other."""
        smaller = set()
        modules = dict(base(run.load()).named_modules())
        for name, module in plain.model.named_modules():
            weight = getattr(module, "weight", None)
            if weight is None or name not in modules:
                continue
            if layer_bytes(modules[name]) < 0.9 * weight.nbytes:
                smaller.add(name)
        assert smaller, "nothing is quantized"
        assert run.load().quantized == smaller

    def test_weight_bytes(
        self, entry: Entry, options: dict[str, Any], run: Run, plain: LoadedModel
    ) -> None:
        """A quantized weight takes as many bytes as weight_bytes says, scales included."""
        plugin: Any = on_bench(entry, **options).plugin
        loaded = run.load()
        for name in sorted(loaded.quantized):
            weight = plain.model.get_submodule(name).weight
            said = plugin.weight_bytes(
                tuple(weight.shape), str(weight.dtype).removeprefix("torch.")
            )
            measured = layer_bytes(base(loaded).get_submodule(name))
            assert measured == pytest.approx(said, rel=self.bytes_tolerance), name

    def test_says_about_the_same(self, run: Run, plain: LoadedModel) -> None:
        """The quantized model's logits are near the plain model's."""
        assert distance(logits(run.load()), logits(plain)) < self.max_error

    def test_the_same_again(self, run: Run) -> None:
        """Loaded twice, it gives the same logits, to the bit."""
        import torch

        assert torch.equal(logits(run.load()), logits(run.load()))

    def test_adapter_finds_all(self, run: Run) -> None:
        """LoRA adapts every quantized layer, and its gradients reach all of its weights; nothing
        quantized takes a gradient."""
        loaded = run.load()
        adapted = {
            name.rpartition(".lora_A")[0].partition("base_model.model.")[2]
            for name, _ in loaded.model.named_modules()
            if name.endswith("lora_A")
        }
        assert loaded.quantized <= adapted
        ids = batch(loaded)
        loaded.model.train()
        loaded.model(input_ids=ids, labels=ids).loss.backward()
        with_gradient = {n for n, p in loaded.model.named_parameters() if p.grad is not None}
        assert frozenset(with_gradient) == loaded.trained
        loaded.model.zero_grad()
        train(loaded)
        loaded.model(input_ids=ids, labels=ids).loss.backward()
        named = dict(loaded.model.named_parameters())
        assert not [n for n in with_gradient if not bool(named[n].grad.abs().sum() > 0)]

    def test_training_leaves_quantized_weights_alone(self, run: Run) -> None:
        """Two steps move the adapter, and the quantized weights stay as they are, to the bit."""
        import torch

        loaded = run.load()
        before = {name: copies(base(loaded).get_submodule(name)) for name in loaded.quantized}
        untrained = logits(loaded)
        train(loaded)
        assert not torch.equal(logits(loaded), untrained)
        for name, old in before.items():
            new = copies(base(loaded).get_submodule(name))
            kept = [any(torch.equal(one, other) for other in new) for one in old]
            assert kept and all(kept), f"{name} has moved"

    def test_saved_and_loaded(self, run: Run, trained: LoadedModel, tmp_path: Path) -> None:
        """The saved adapter on the model, quantized again, gives the same logits, to the bit."""
        import torch

        from tunewright_hf.models.export import save_result

        expected = logits(trained)
        save_result(trained, tmp_path / "saved")
        again = run.load(prior=StageResult(tmp_path / "saved", "adapter"), trainable=False)
        assert torch.equal(logits(again), expected)

    def test_merged(self, run: Run, trained: LoadedModel, tmp_path: Path) -> None:
        """Merging dequantizes: the model has plain weights alone, says the same within `tolerance`,
        and does so without the quantizer when it was saved and loaded."""
        import torch

        from tunewright_hf.models.export import save_result
        from tunewright_hf.models.modules import quantized_modules

        expected = logits(trained)
        merged: LoadedModel = run.plugin("adapter").merge(trained)
        assert merged.saves == "model"
        assert not merged.quantized and not quantized_modules(merged.model)
        found = logits(merged)
        assert distance(found, expected) <= self.tolerance
        save_result(merged, tmp_path / "merged")
        again = a_model(tmp_path, str(tmp_path / "merged"))
        torch.testing.assert_close(logits(again), found, atol=1e-5, rtol=1e-5)

    def test_refuses_to_train_quantized_weights(
        self, entry: Entry, options: dict[str, Any]
    ) -> None:
        """Adapters that train the model's own weights are refused by `recipe check`, LoRA is
        not."""
        for adapter in entries("adapter"):
            if load(adapter).trains_base_weights:
                written = with_plugin(adapter, {}, {})
                check_refused(entry, options, fp32(self.given(written)))
        need_adapter(ADAPTER)
        resolve(a_recipe(entry, options, self.given()))

    @pytest.mark.parametrize("stage", ["sft", "dpo", "reward"])
    def test_lora_learns(
        self, entry: Entry, options: dict[str, Any], model: str, tmp_path: Path, stage: str
    ) -> None:
        """In a run of the stage LoRA brings the loss down on the quantized model."""
        if stage not in self.stages:
            pytest.skip("`stages` leaves it out")
        need_adapter(ADAPTER)
        if not [found for found in entries("stage") if found.name == stage]:
            pytest.skip(f"no stage {stage} is installed")
        rows = "messages" if stage == "sft" else "preference"
        own = {"adapter": {"name": ADAPTER, "rank": 16}, "model": model}
        sections = merged(with_plugin(entry, options, self.given()), own)
        training = {
            "epochs": 12,
            "learning_rate": self.learning_rate_of_run,
            **sections.pop("training", {}),
        }
        trial = go(recipe({"name": stage}, rows, tmp_path, 12, sections, **training))
        assert sum(trial.losses[-3:]) / 3 < 0.9 * trial.losses[0]


def need_adapter(name: str) -> None:
    if not [entry for entry in entries("adapter") if entry.name == name]:
        pytest.skip(f"no adapter {name} is installed: pip install tunewright-{name}")


def fp32(sections: Any) -> dict[str, Any]:
    """Sections with a training in fp32, where they do not say."""
    return merged({"training": {"precision": "fp32"}}, sections)


def base(loaded: LoadedModel) -> Any:
    """The model below its adapters."""
    from tunewright_hf.models.modules import base_model

    return base_model(loaded.model)


def layer_bytes(module: Any) -> int:
    """Bytes of a layer's own weight; below an adapter, of the layer that it adapts."""
    return measure.layer_bytes(getattr(module, "base_layer", module))


def copies(module: Any) -> list[Any]:
    layer = getattr(module, "base_layer", module)
    return [tensor.detach().clone() for tensor in measure.own_tensors(layer)]


def distance(found: Any, expected: Any) -> float:
    """Of logits, relative to their norm."""
    return float((found - expected).norm() / expected.norm())
