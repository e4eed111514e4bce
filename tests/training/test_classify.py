"""Classifiers and regressions: losses, metrics beside scikit-learn's formulas, splits of a step,
and a result that transformers' pipeline reads."""

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from answers_setup import run_stage
from pydantic import ValidationError
from stage_checks import check_resumed, check_split
from training_setup import SIZE, loaded, logs_of, lora
from transformers import AutoModelForSequenceClassification, LlamaConfig, pipeline

from tunewright import RunError
from tunewright.check import resolve
from tunewright.run import open_run, train
from tunewright_classify import Classify
from tunewright_classify.metrics import class_metrics, class_sums, number_metrics, number_sums
from tunewright_classify.training import Targets

BIRDS = ["wren", "owl", "swan"]


def classify(**options: Any) -> Classify:
    return Classify(Classify.Options(**options), "classify")


def model(outputs: int = 3) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(**SIZE, num_labels=outputs)
    return AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")


def rows(kind: str = "single_label", number: int = 24, seed: int = 0) -> datasets.Dataset:
    """The label is told by tokens in the row."""
    made = torch.Generator().manual_seed(seed)
    table = []
    for row in range(number):
        ids = torch.randint(20, SIZE["vocab_size"], (1 + row % 5,), generator=made).tolist()
        place = row % 3
        if kind == "regression":
            table.append({"input_ids": [5 + place, *ids], "names": [], "value": float(place)})
        elif kind == "multi_label":
            several = [n for n in range(3) if (row >> n) & 1]
            names = [BIRDS[n] for n in several]
            table.append({"input_ids": [*(5 + n for n in several), *ids], "names": names})
        else:
            table.append({"input_ids": [5 + place, *ids], "names": [BIRDS[place]]})
        table[-1].setdefault("value", None)
    features = datasets.Features(
        input_ids=datasets.List(datasets.Value("int32")),
        names=datasets.List(datasets.Value("string")),
        value=datasets.Value("float64"),
    )
    return datasets.Dataset.from_list(table, features=features)


def options_of(kind: str) -> dict[str, Any]:
    return {"problem": kind} | ({} if kind == "regression" else {"labels": BIRDS})


# ---- labels --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "names", "expected"),
    [
        ({"labels": BIRDS}, ["owl"], [0, 1, 0]),
        ({"labels": BIRDS}, ["2"], [0, 0, 1]),
        ({"labels": ["1", "0"]}, ["0"], [0, 1]),
        ({"labels": BIRDS, "problem": "multi_label"}, ["swan", "wren"], [1, 0, 1]),
        ({"labels": BIRDS, "problem": "multi_label"}, [], [0, 0, 0]),
    ],
)
def test_names_and_indices(given: Any, names: list[str], expected: list[float]) -> None:
    assert Targets(Classify.Options(**given)).of({"names": names, "value": None}) == expected


@pytest.mark.parametrize(
    ("given", "row", "said"),
    [
        ({"labels": BIRDS}, {"names": ["owll"]}, r"'owll' \(did you mean 'owl'\?\)"),
        ({"labels": BIRDS}, {"names": ["3"]}, "has the label '3'"),
        ({"labels": BIRDS}, {"names": ["owl", "wren"]}, "has 2 labels, expected one .problem: mul"),
        ({"problem": "regression"}, {"names": ["owl"]}, "label 'owl', expected a number"),
    ],
)
def test_other_labels_are_refused(given: Any, row: dict[str, Any], said: str) -> None:
    with pytest.raises(RunError, match=said):
        Targets(Classify.Options(**given)).of({"value": None, **row})


def test_the_rows_are_checked_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"stage\.labels: a row has the label 'swan'"):
        run_stage(tmp_path, loaded(model(2)), classify(labels=BIRDS[:2]), rows())


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"labels": ["one"]},
        {"labels": ["one", "one"]},
        {"problem": "regression", "labels": ["a", "b"]},
        {"problem": "multi_label"},
    ],
)
def test_labels_have_to_fit_the_problem(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="labels"):
        Classify.Options(**given)


# ---- metrics -------------------------------------------------------------------------------------


def test_classes_by_hand() -> None:
    found = torch.eye(3)[torch.tensor([0, 0, 1, 2])]
    known = torch.eye(3)[torch.tensor([0, 1, 1, 1])]
    metrics = class_metrics(class_sums(found, known, several=False))
    # wren: 1 right, 1 extra; owl: 1 right, 2 missed; swan: 1 extra
    assert metrics == pytest.approx({"accuracy": 0.5, "f1": (2 / 3 + 2 / 4 + 0) / 3})


def test_sums_of_parts_are_those_of_the_whole() -> None:
    made = torch.Generator().manual_seed(0)
    logits = torch.randn(9, 3, generator=made)
    known = (torch.randn(9, 3, generator=made) > 0).float()
    whole = class_sums(logits, known, several=True)
    parts = sum(class_sums(logits[n::2], known[n::2], several=True) for n in (0, 1))
    assert torch.equal(whole, parts)
    right = ((logits > 0) == (known > 0.5)).all(1).float().mean()
    assert class_metrics(whole)["accuracy"] == pytest.approx(float(right))


def test_numbers() -> None:
    one, other = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.5, 1.0, 5.0])
    found = number_metrics(number_sums(one, other))
    expected = float(torch.corrcoef(torch.stack([one, other]))[0, 1])
    assert found == pytest.approx({"mse": (0.25 + 1 + 1) / 3, "pearson": expected})
    assert number_metrics(number_sums(one, torch.ones(3)))["pearson"] == 0


# ---- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["full", "lora"])
@pytest.mark.parametrize("kind", ["single_label", "multi_label", "regression"])
def test_it_learns(tmp_path: Path, kind: str, how: str) -> None:
    plain = model(1 if kind == "regression" else 3)
    made = lora(plain, dropout=0.0, task="SEQ_CLS") if how == "lora" else loaded(plain)
    run, result = run_stage(
        tmp_path,
        made,
        classify(**options_of(kind)),
        rows(kind),
        evals={"it": rows(kind, 9)},
        max_steps=40,
        per_device_train_batch_size=8,
    )
    logged = logs_of(run)
    assert logged[-1]["loss"] < 0.3 * logged[0]["loss"]
    metrics = result.metrics
    assert metrics["it_pearson" if kind == "regression" else "it_f1"] > 0.8


def test_a_step_does_not_depend_on_how_it_is_split(tmp_path: Path) -> None:
    check_split(
        tmp_path, lambda: loaded(model()), classify(labels=BIRDS), rows(), rows(seed=4, number=5)
    )


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    check_resumed(tmp_path, lambda: lora(model(), task="SEQ_CLS"), classify(labels=BIRDS), rows())


# ---- from a recipe to transformers ---------------------------------------------------------------


def test_transformers_pipeline_reads_the_result(tmp_path: Path) -> None:
    texts = ["a wren sings", "an owl hoots at night", "a swan swims"]
    lines = [
        f'{{"text": "{text}", "label": "{bird}"}}\n'
        for text, bird in zip(texts, BIRDS, strict=True)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(lines * 8))
    recipe = resolve(
        {
            "model": "tiny",
            "family": {"name": "qwen", "device": "cpu", "tiny_hidden_size": 32},
            "data": [{"path": str(tmp_path / "rows.jsonl")}],
            "stage": {"name": "classify", "labels": BIRDS},
            "training": {
                "max_steps": 30,
                "learning_rate": 1e-2,
                "per_device_train_batch_size": 8,
                "max_length": 64,
                "precision": "fp32",
            },
            "output": str(tmp_path / "run"),
            "loggers": [],
        }
    )
    result = train(recipe)
    classifier = pipeline("text-classification", model=str(result.path), device="cpu")
    found = classifier(texts)
    assert [each["label"] for each in found] == BIRDS
    opened = open_run(tmp_path / "run")
    assert opened.policy_head == "classes"
    ours = opened.load_policy("classes")
    assert ours.model.config.problem_type == "single_label_classification"
    ids = ours.tokenizer(texts[1], return_tensors="pt")
    with torch.no_grad():
        logits = ours.model(**ids).logits[0]
    assert float(logits.softmax(0)[1]) == pytest.approx(found[1]["score"], abs=1e-5)
