"""Tests for adapters: what it trains changes, is saved and restored, and nothing else changes."""

from pathlib import Path
from typing import Any

import pytest

from tunewright.registry import Entry
from tunewright.types import AdapterRequest, LoadedModel
from tunewright_conformance.bench import a_model, on_bench
from tunewright_conformance.doubles import FakeRun
from tunewright_conformance.suite import Suite


class TestAdapter(Suite):
    kinds = ("adapter",)

    @pytest.fixture
    def trained(self, entry: Entry, options: dict[str, Any], tmp_path: Path) -> LoadedModel:
        loaded = apply(entry, options, tmp_path)
        train(loaded)
        return loaded

    def test_begins_as_the_model(
        self, entry: Entry, options: dict[str, Any], tmp_path: Path
    ) -> None:
        """Before training, the adapted model says what the model says."""
        import torch

        expected = logits(a_model(tmp_path))
        torch.testing.assert_close(
            logits(apply(entry, options, tmp_path)), expected, atol=1e-5, rtol=1e-5
        )

    def test_moves_what_it_trains(
        self, entry: Entry, options: dict[str, Any], tmp_path: Path
    ) -> None:
        """Two steps move every trainable parameter; all others, and the buffers, stay the same to
        the bit."""
        import torch

        loaded = apply(entry, options, tmp_path)
        intended = {name for name, p in loaded.model.named_parameters() if p.requires_grad}
        before = {name: value.clone() for name, value in tensors(loaded).items()}
        train(loaded)
        moved = {
            name for name, value in tensors(loaded).items() if not torch.equal(value, before[name])
        }
        assert intended, "nothing is trainable"
        assert moved == intended

    def test_leaves_excluded_modules_alone(
        self, entry: Entry, options: dict[str, Any], tmp_path: Path
    ) -> None:
        """An adapter beside the weights never trains heads, routers and towers, which the family
        names."""
        loaded = apply(entry, options, tmp_path)
        if loaded.saves == "model":
            pytest.skip("it trains weights of the model itself")
        trainable = [name for name, p in loaded.model.named_parameters() if p.requires_grad]
        assert not [
            name for name in trainable if set(name.split(".")) & set(loaded.adapter_exclude)
        ]

    def test_saved_and_loaded(
        self, entry: Entry, options: dict[str, Any], trained: LoadedModel, tmp_path: Path
    ) -> None:
        """The saved result holds all that was trained: loaded again, the logits are equal to the
        bit."""
        import torch

        from tunewright_hf.models.export import save_result

        expected = logits(trained)
        save_result(trained, tmp_path / "saved")
        if trained.saves == "adapter":
            again = apply(
                entry, options, tmp_path, adapter_path=tmp_path / "saved", trainable=False
            )
        else:
            again = a_model(tmp_path, str(tmp_path / "saved"))
        assert torch.equal(logits(again), expected)

    def test_merged(
        self, entry: Entry, options: dict[str, Any], trained: LoadedModel, tmp_path: Path
    ) -> None:
        """Merged into the weights, saved and loaded, the model says the same, and nothing of the
        adapter is left."""
        import torch

        from tunewright_hf.models.export import save_result

        plugin: Any = on_bench(entry, **options).plugin
        if trained.saves == "model":
            pytest.skip("its result is a whole model")
        expected = logits(trained)
        merged: LoadedModel = plugin.merge(trained)
        assert merged.saves == "model"
        save_result(merged, tmp_path / "merged")
        loaded = a_model(tmp_path, str(tmp_path / "merged"))
        assert tensors(loaded).keys() == tensors(a_model(tmp_path)).keys()
        torch.testing.assert_close(logits(loaded), expected, atol=1e-5, rtol=1e-5)

    def test_not_trainable(self, entry: Entry, options: dict[str, Any], tmp_path: Path) -> None:
        """Asked for a model to use and not to train, nothing is trainable."""
        loaded = apply(entry, options, tmp_path, trainable=False)
        assert not [name for name, p in loaded.model.named_parameters() if p.requires_grad]

    def test_without_weights(self, entry: Entry, options: dict[str, Any], tmp_path: Path) -> None:
        """An adapter that works on the meta device makes the same parameters there: names, shapes,
        and what is trained."""
        caller = on_bench(entry, **options)
        plugin: Any = caller.plugin
        if not plugin.works_on_meta():
            pytest.skip("it needs weights")
        expected = apply(entry, options, tmp_path)
        empty = a_model(tmp_path)
        empty.model.to("meta")
        request = AdapterRequest(empty)
        found = caller.call("apply_adapter", run=FakeRun(tmp_path), request=request)
        made, wanted = (
            {name: (each.shape, each.dtype, each.requires_grad) for name, each in both.items()}
            for both in (tensors(found), tensors(expected))
        )
        assert made == wanted
        assert found.trained == expected.trained

    def test_seed(self, entry: Entry, options: dict[str, Any], tmp_path: Path) -> None:
        """The same seed makes the same adapter, and nothing else notices."""
        import torch

        state = torch.get_rng_state()
        one, same = (tensors(apply(entry, options, tmp_path, seed=7)) for _ in range(2))
        assert torch.equal(torch.get_rng_state(), state), "the global random state was used up"
        assert not [name for name, value in one.items() if not torch.equal(value, same[name])]


def apply(entry: Entry, options: dict[str, Any], folder: Path, **request: Any) -> LoadedModel:
    """The tiny twin with the adapter."""
    asked = AdapterRequest(a_model(folder), **request)
    loaded: LoadedModel = on_bench(entry, **options).call(
        "apply_adapter", run=FakeRun(folder), request=asked
    )
    return loaded


def tensors(loaded: LoadedModel) -> dict[str, Any]:
    """Parameters and buffers by name."""
    return {**dict(loaded.model.named_parameters()), **dict(loaded.model.named_buffers())}


def batch(loaded: LoadedModel) -> Any:
    """Token ids (2, 16), the same in every test."""
    import torch

    size = loaded.model.get_input_embeddings().weight.shape[0]
    ids = torch.randint(0, size, (2, 16), generator=torch.Generator().manual_seed(0))
    return ids.to(loaded.model.device)


def logits(loaded: LoadedModel) -> Any:
    """(2, 16, V)"""
    import torch

    loaded.model.eval()
    with torch.no_grad():
        return loaded.model(input_ids=batch(loaded)).logits


def train(loaded: LoadedModel) -> None:
    """Two steps large enough to see."""
    import torch

    parameters = [parameter for parameter in loaded.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    loaded.model.train()
    ids = batch(loaded)
    for _ in range(2):
        optimizer.zero_grad()
        loaded.model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
