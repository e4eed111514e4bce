"""The example recipes run, as `tunewright train FILE --smoke` runs them."""

import json
import math
from pathlib import Path

import pytest

from tunewright import check, run

EXAMPLES = Path(__file__).parents[3] / "docs/examples/quantizers"
FILES = sorted(EXAMPLES.glob("*.yaml"))


@pytest.mark.parametrize(
    "recipe",
    [pytest.param(f, marks=[pytest.mark.gpu] if f.stem == "eetq" else []) for f in FILES],
    ids=lambda recipe: recipe.stem,
)
def test_an_example_runs(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    short = run.smoke(check.resolve(recipe))
    run.train(short, overwrite=True, limit=32)
    lines = (tmp_path / short.recipe.output / "metrics.jsonl").read_text("utf-8").splitlines()
    losses = [row["loss"] for row in map(json.loads, lines) if "loss" in row]
    assert len(losses) == 3 and all(map(math.isfinite, losses))


def test_every_quantizer_has_an_example() -> None:
    from envs.quantizers.quantizer_runs import QUANTIZERS

    assert {section["name"].replace("_", "-") for section in QUANTIZERS.values()} <= {
        file.stem for file in FILES
    }
