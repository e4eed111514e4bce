"""`predict` of classifiers and rerankers."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import typer
from transformers import pipeline
from typer.testing import CliRunner

from tunewright import RecipeError, RunError
from tunewright.check import resolve
from tunewright.run import train
from tunewright_predict import command
from tunewright_predict.heads import class_of

TEXTS = ["a wren sings", "an owl hoots at night"]
RANKED = {"query": "Who sings?", "positive": "The wren.", "negatives": ["Owls hoot.", "A stone."]}


def trained(folder: Path, stage: dict[str, Any], records: list[dict[str, Any]]) -> Path:
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in records))
    recipe = {
        "model": "tiny",
        "family": {"name": "qwen", "device": "cpu", "tiny_hidden_size": 32},
        "data": [{"path": str(folder / "rows.jsonl")}],
        "stage": stage,
        "training": {"max_steps": 20, "learning_rate": 1e-2, "precision": "fp32", "max_length": 64},
        "output": str(folder / "run"),
        "loggers": [],
    }
    train(resolve(recipe))
    return folder / "run"


def predict(run: Path, data: Path, output: Path, *more: str) -> list[dict[str, Any]]:
    app = typer.Typer()
    app.command()(command)
    asked = [str(run), "--data", str(data), "--output", str(output), *more]
    CliRunner().invoke(app, asked, catch_exceptions=False)
    return [json.loads(line) for line in output.read_text().splitlines()]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = [{"text": text, "label": name} for text, name in zip(TEXTS, ("b", "c"), strict=True)]
    stage = {"name": "classify", "labels": ["a", "b", "c"]}
    return trained(tmp_path_factory.mktemp("heads"), stage, records * 4)


def test_labels_and_scores_are_those_of_transformers(classifier: Path, tmp_path: Path) -> None:
    found = predict(classifier, classifier.parent / "rows.jsonl", tmp_path / "out.jsonl")
    assert [row["prediction"] for row in found] == ["b", "c"] * 4
    assert [row["label"] for row in found] == [["b"], ["c"]] * 4
    theirs = pipeline("text-classification", model=str(classifier / "model"), top_k=None)
    for row in found[:2]:
        expected = {each["label"]: each["score"] for each in theirs([row["text"]])[0]}
        assert row["scores"] == pytest.approx(expected, abs=1e-5)


def test_plain_texts_and_bad_rows(classifier: Path, tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("\n".join(TEXTS) + "\n")
    found = predict(classifier, tmp_path / "plain.txt", tmp_path / "out.jsonl")
    assert [row["prediction"] for row in found] == ["b", "c"]
    assert "label" not in found[0]
    (tmp_path / "bad.jsonl").write_text('{"text": "a", "label": "b"}\n{"text": "", "label": "b"}\n')
    with pytest.raises(RunError, match="1 row of 2 could not be read"):
        predict(classifier, tmp_path / "bad.jsonl", tmp_path / "bad")
    lines = [json.loads(line) for line in (tmp_path / "bad").read_text().splitlines()]
    assert "text: is empty" in lines[1]["error"]


def test_settings_of_text_are_refused(classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--temperature: this model gives labels or scores"):
        predict(classifier, tmp_path, tmp_path / "out.jsonl", "--temperature", "0.5")


def test_documents_have_the_scores_of_the_reranker(tmp_path: Path) -> None:
    run = trained(tmp_path, {"name": "rerank"}, [RANKED] * 4)
    (row,) = predict(run, tmp_path / "rows.jsonl", tmp_path / "out.jsonl", "--limit", "1")
    assert row["documents"] == ["The wren.", "Owls hoot.", "A stone."]
    assert max(row["scores"]) == row["scores"][0]


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        ("multi_label_classification", {"prediction": ["x"], "scores": {"x": 0.7310586, "y": 0.5}}),
        ("regression", {"prediction": 1.0}),
    ],
)
def test_other_problems(problem: str, expected: dict[str, Any]) -> None:
    config = SimpleNamespace(problem_type=problem, id2label={0: "x", 1: "y"})
    found = class_of(torch.tensor([1.0, 0.0]), config)
    assert found.pop("scores", {}) == pytest.approx(expected.pop("scores", {}))
    assert found == expected
