"""Number formats: which one is taken by itself, and how near its losses are."""

import pytest
import torch
from training_setup import loaded, logs_of, model, qwen, rows, run_training

from tunewright import RecipeError
from tunewright_hf.models.precision import resolve

#: how far the mean loss of a tenth of a training may be from that of fp32, as a share of it
TOLERANCE = 0.02


@pytest.mark.parametrize(
    ("units", "taken"), [({"amx_bf16": True}, "bf16"), ({"amx_bf16": False}, "fp32"), ({}, "fp32")]
)
def test_a_cpu_with_matrix_units_for_bf16_uses_them(units, taken, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, **units})
    assert resolve("auto", torch.device("cpu")) == taken
    assert resolve("fp32", torch.device("cpu")) == "fp32"
    with pytest.raises(RecipeError, match="fp16 needs a GPU"):
        resolve("fp16", torch.device("cpu"))


@pytest.mark.parametrize("config", [None, qwen], ids=["llama", "qwen3"])
def test_bf16_learns_as_fp32_does(config, tmp_path):
    """Within TOLERANCE at every step of a training in which the loss falls by more than that."""
    curves = {}
    for precision in ("fp32", "bf16"):
        made = loaded(model(config() if config else None))
        run, _ = run_training(
            tmp_path / precision,
            made,
            rows(48),
            max_steps=30,
            logging_steps=3,
            learning_rate=3e-3,
            precision=precision,
        )
        curves[precision] = [line["loss"] for line in logs_of(run)]
    assert curves["bf16"] == pytest.approx(curves["fp32"], rel=TOLERANCE)
    assert curves["bf16"] != curves["fp32"]
    assert curves["fp32"][-1] < (1 - 3 * TOLERANCE) * curves["fp32"][0]
