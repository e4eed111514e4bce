"""The example recipe of distill, made short, with a teacher that another example trains."""

import json
from pathlib import Path

import pytest

from tunewright import check
from tunewright.run import smoke, train

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
SHORT = ["loggers=[jsonl]", "training.precision=fp32", "training.max_steps=2"]


def run(name: str, *overrides: str) -> list[dict[str, float]]:
    """Metrics that the example logged."""
    resolved = check.resolve(EXAMPLES / f"{name}.yaml", [*SHORT, *overrides])
    train(resolved, limit=8)
    lines = (Path(resolved.recipe.output) / "metrics.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("cached", [False, True])
def test_the_example(tmp_path, monkeypatch, cached):
    monkeypatch.chdir(tmp_path)
    run("quickstart", "family.tiny_hidden_size=64", "family.tiny_layers=1")
    more = ["stage.lmbda=0", "stage.max_new_tokens=256", "stage.cache_top_k=6"] if cached else []
    logged = run("distill", "family.tiny_hidden_size=16", *more)
    assert [line["step"] for line in logged if "loss" in line] == [1, 2]
    assert all(line["loss"] > 0 for line in logged if "loss" in line)
    kept = tmp_path / "runs/distill/checkpoints/teacher/teacher.json"
    assert kept.exists() == cached


def test_a_smoke_run_needs_no_teacher(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    resolved = smoke(check.resolve(EXAMPLES / "distill.yaml", ["loggers=[]"]))
    assert train(resolved, limit=4).steps == 3
