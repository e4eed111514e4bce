"""Language model, projector and tower are trained each on its own, each at its own rate."""

from pathlib import Path
from typing import Any

import pytest

import tunewright
from media.test_recipes import pictures, recipe
from tunewright import registry
from tunewright_conformance.bench import load_model

RATE = 1e-3
TOWER, PROJECTOR = r"visual\.(?!merger)", r"visual\.merger"
PARTS = ("tower", "projector", "language")


def changes(folder: Path, family: dict[str, Any], **training: Any) -> dict[str, float]:
    """Largest change of a weight of each part in one step of AdamW: its learning rate, whatever the
    gradient is."""
    options = {
        "max_steps": 1,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 0.0,
    }
    asked = recipe(
        folder, data=[{"path": str(pictures(folder, 2))}], training=options | training, loggers=[]
    )
    tunewright.train(asked | {"family": {"name": "qwen", "tiny_variant": "qwen2_vl", **family}})
    qwen = registry.find("family", "qwen")
    before = dict(load_model(qwen, "qwen2_vl", folder, seed=42).model.named_parameters())
    after = load_model(qwen, None, folder, model=str(folder / "run/model")).model
    found = dict.fromkeys(PARTS, 0.0)
    for name, each in after.named_parameters():
        part = "tower" if "visual" in name else "language"
        part = "projector" if "visual.merger" in name else part
        change = float((each.detach() - before[name].detach()).abs().max())
        found[part] = max(found[part], change)
    return found


@pytest.mark.parametrize(
    ("tower", "projector"),
    [(False, False), (True, False), pytest.param(False, True, marks=pytest.mark.long)],
)
def test_each_part_on_its_own(tower: bool, projector: bool, tmp_path: Path) -> None:
    found = changes(tmp_path, {"train_tower": tower, "train_projector": projector})
    wanted = {"tower": RATE * tower, "projector": RATE * projector, "language": RATE}
    assert found == pytest.approx(wanted, rel=1e-2, abs=0)


def test_rates_of_their_own(tmp_path: Path) -> None:
    scales = {TOWER: 0.1, PROJECTOR: 0.5}
    family = {"train_tower": True, "train_projector": True}
    found = changes(tmp_path, family, learning_rate_scales=scales)
    wanted = {"tower": 0.1 * RATE, "projector": 0.5 * RATE, "language": RATE}
    assert found == pytest.approx(wanted, rel=1e-2)
