"""`train` plans by itself before it loads: it warns, and with `strict` it does not start."""

import pytest
from accelerate.state import AcceleratorState, PartialState
from transformers import LlamaConfig

from tunewright import RecipeError, RunError, train
from tunewright.events import Notice
from tunewright_hf.planning import devices
from tunewright_hf.planning.devices import Device

CONFIG = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, vocab_size=256)


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Train a checkpoint without weights, which fails when it is loaded: what was said before."""
    here = {}
    monkeypatch.setattr(devices, "this_device", lambda: Device("a small GPU", here["memory"]))
    CONFIG.save_pretrained(tmp_path / "model")
    recipe = {
        "model": str(tmp_path / "model"),
        "template": "llama3",
        "data": [{"path": str(tmp_path / "rows.jsonl")}],
        "stage": "sft",
        "training": {"max_length": 32},
        "output": str(tmp_path / "run"),
    }

    def call(memory, error, **options):
        here["memory"] = memory
        events = []
        with pytest.raises(error) as raised:
            train(recipe, on_event=events.append, **options)
        warnings = [
            each.message for each in events if isinstance(each, Notice) and each.level == "warning"
        ]
        return warnings, str(raised.value)

    return call


def test_too_little_memory_is_a_warning(trained):
    warnings, error = trained(2**20, RunError)
    [warning] = [each for each in warnings if "by its plan" in each]
    assert warning.startswith("stage 1, sft, takes 0.8 GiB by its plan, and a small GPU has 0.0")
    assert "tunewright plan RECIPE" in warning
    assert "holds no tokenizer" in error  # it went on
    # the device of the plan, a CPU, is not that of the training
    assert not AcceleratorState._shared_state and not PartialState._shared_state


def test_strict_does_not_start(trained):
    _, error = trained(2**20, RecipeError, strict=True)
    assert "takes 0.8 GiB by its plan" in error


def test_enough_memory_is_not_mentioned(trained):
    warnings, error = trained(2**36, RunError, strict=True)
    assert not any("by its plan" in each for each in warnings)
    assert "holds no tokenizer" in error
