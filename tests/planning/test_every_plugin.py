"""Every adapter and optimizer that is installed can be planned."""

import pytest
from planning_setup import planned, resolved

from tunewright import RecipeError, registry
from tunewright_spectrum import Spectrum

#: options of those whose defaults do not suit a tiny model
OPTIONS = {
    "apollo": {"rank": 8},
    "galore": {"rank": 8},
    "trainable_tokens": {"tokens": ["a"]},
}
IN_BACKWARD = {"training": {"max_grad_norm": 0}}


@pytest.mark.long
@pytest.mark.parametrize("name", [entry.name for entry in registry.entries("adapter")])
def test_every_adapter_is_planned(tmp_path, name):
    found = planned(resolved(tmp_path, adapter={"name": name, **OPTIONS.get(name, {})}))
    assert found.peak.peak > sum(found.held.values()) >= found.held["weights"]


@pytest.mark.long
@pytest.mark.parametrize("name", [entry.name for entry in registry.entries("optimizer")])
def test_every_optimizer_is_planned(tmp_path, name):
    adapter = "lora" if name == "lorafa" else "full"
    more = IN_BACKWARD if name in ("lomo", "adalomo") else {}
    optimizer = {"name": name, **OPTIONS.get(name, {})}
    found = planned(resolved(tmp_path, adapter=adapter, optimizer=optimizer, **more))
    assert found.peak.peak > sum(found.held.values()) >= found.held["weights"]


def test_an_adapter_that_reads_values_is_refused(tmp_path, monkeypatch):
    def read(self, request):
        weights = request.loaded.model.get_output_embeddings().weight
        return ["model.norm.weight"] if weights[weights > 0].numel() else []

    monkeypatch.setattr(Spectrum, "trained_parameters", read)
    with pytest.raises(RecipeError, match="spectrum reads values of weights"):
        planned(resolved(tmp_path, adapter="spectrum"))
