"""Benchmarks of the harness on local files, in the layouts in which they are published, against the
harness called directly on the same files."""

import csv
import json
from pathlib import Path
from typing import Any

import datasets
import lm_eval
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from lm_eval.tasks import TaskManager

from predict.trained import call, read, shared_run
from tunewright import RecipeError, RunError
from tunewright.errors import Stopped
from tunewright_evaluate import command
from tunewright_lm_eval import harness_model, layouts

BUNDLED = Path(lm_eval.__file__).parent / "tasks"
SUBJECTS = {
    "mmlu_anatomy": "mmlu/default/mmlu_anatomy.yaml",
    "ceval-valid_accountant": "ceval/ceval-valid_accountant.yaml",
    "cmmlu_agronomy": "cmmlu/cmmlu_agronomy.yaml",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_run(tmp_path_factory)


def questions(count: int, chinese: bool) -> list[tuple[str, list[str], int]]:
    """Questions that differ, with the number of the answer."""
    words = "心肝脾肺肾胃胆肠" if chinese else ("heart", "liver", "lung", "bone", "skin", "vein")
    asked = "下列哪一项是{}，第{}题？" if chinese else "Which is the {} of case {}?"
    return [
        (
            asked.format(words[n % len(words)], n),
            [f"{words[(n + k) % len(words)]} {k}" for k in range(4)],
            n % 4,
        )
        for n in range(count)
    ]


def write_csv(path: Path, header: list[str] | None, rows: list[list[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        if header:
            writer.writerow(header)
        writer.writerows(rows)


def mmlu_csv(folder: Path, subject: str = "anatomy", count: int = 6) -> None:
    """As in Hendrycks' data.tar: no header, a letter for the answer."""
    for split, number in (("dev", 5), ("test", count), ("val", 2)):
        rows = [[q, *choices, "ABCD"[right]] for q, choices, right in questions(number, False)]
        write_csv(folder / f"data/{split}/{subject}_{split}.csv", None, rows)


def mmlu_parquet(folder: Path) -> None:
    """As on Hugging Face."""
    for split, number in (("dev", 5), ("test", 6)):
        rows = [
            {"question": q, "subject": "anatomy", "choices": choices, "answer": right}
            for q, choices, right in questions(number, False)
        ]
        path = folder / f"cais/mmlu/anatomy/{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), path)


def ceval(folder: Path) -> None:
    for split, number in (("dev", 5), ("val", 6)):
        rows = [
            [n, q, *choices, "ABCD"[right], "因为如此"]
            for n, (q, choices, right) in enumerate(questions(number, True))
        ]
        header = ["id", "question", "A", "B", "C", "D", "answer", "explanation"]
        write_csv(folder / f"ceval-exam/{split}/accountant_{split}.csv", header, rows)
    rows = [[0, "问", "甲", "乙", "丙", "丁"]]  # the hidden test set has no answers
    write_csv(folder / "ceval-exam/test/accountant_test.csv", ["id", "question", *"ABCD"], rows)


def cmmlu(folder: Path) -> None:
    for split, number in (("dev", 5), ("test", 6)):
        rows = [
            [n, q, *choices, "ABCD"[right]]
            for n, (q, choices, right) in enumerate(questions(number, True))
        ]
        header = ["", "Question", *"ABCD", "Answer"]
        write_csv(folder / f"cmmlu/{split}/agronomy.csv", header, rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three benchmarks, MMLU as published."""
    made = tmp_path_factory.mktemp("data")
    mmlu_csv(made)
    ceval(made)
    cmmlu(made)
    return made


def evaluate(run: Path, output: Path, *options: Any) -> dict[str, Any]:
    call(command, run, "--with", "lm_eval", *options, "--output", output)
    found: dict[str, Any] = json.loads((output / "results.json").read_text("utf-8"))
    return found


def direct(run: Path, work: Path, folder: Path, shots: int) -> dict[str, Any]:
    """The harness on the folder that the run has saved, with the bundled tasks and the same files,
    which it reads as CSV and JSON itself."""
    mmlu = {}
    for split in ("dev", "test"):
        path = work / f"mmlu-{split}.jsonl"
        with (folder / f"data/{split}/anatomy_{split}.csv").open(encoding="utf-8") as file:
            rows = [
                {"question": line[0], "choices": line[1:5], "answer": "ABCD".index(line[5])}
                for line in csv.reader(file)
            ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        mmlu[split] = str(path)
    files = {
        "mmlu_anatomy": ("json", mmlu),
        "ceval-valid_accountant": (
            "csv",
            {s: str(folder / f"ceval-exam/{s}/accountant_{s}.csv") for s in ("dev", "val")},
        ),
        "cmmlu_agronomy": (
            "csv",
            {s: str(folder / f"cmmlu/{s}/agronomy.csv") for s in ("dev", "test")},
        ),
    }
    for task, (form, data_files) in files.items():
        config = {
            "include": str(BUNDLED / SUBJECTS[task]),
            "task": task,
            "dataset_path": form,
            "dataset_name": None,
            "dataset_kwargs": {"data_files": data_files},
        }
        (work / f"{task}.yaml").write_text(yaml.safe_dump(config), "utf-8")
    found: dict[str, Any] = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(run / "model"), "dtype": "float32"},
        tasks=list(SUBJECTS),
        task_manager=TaskManager(include_path=str(work), include_defaults=False),
        num_fewshot=shots,
        apply_chat_template=True,
        batch_size=8,
        bootstrap_iters=0,
        device="cpu",
    )
    return found


@pytest.mark.parametrize("shots", [0, 5])
def test_scores_are_the_harness_own(run: Path, folder: Path, tmp_path: Path, shots: int) -> None:
    tasks = f"tasks=[{','.join(SUBJECTS)}]"
    given = (tasks, f"data_folder={folder}", f"num_fewshot={shots}")
    ours = evaluate(run, tmp_path / "out", *given)
    theirs = direct(run, tmp_path, folder, shots)
    for task in SUBJECTS:
        for metric in ("acc", "acc_norm"):
            if f"{metric},none" in theirs["results"][task]:
                found = ours["metrics"][f"{task}/{metric}"]
                assert found == theirs["results"][task][f"{metric},none"], task
    assert ours["rows"] == 18
    assert ours["margins"]["mmlu_anatomy/acc"] > 0
    assert ours["run"] == "run"
    samples = read(tmp_path / "out/samples.jsonl")
    for task in SUBJECTS:
        mine = [sample for sample in samples if sample["task"] == task]
        for one, two in zip(mine, theirs["samples"][task], strict=True):
            assert [each[:2] for each in one["arguments"]] == [
                list(each[:2]) for each in two["arguments"]
            ]  # the prompts, in our template, with the solved examples
            answers = [float(each[0][0]) for each in one["resps"]]
            assert answers == pytest.approx(
                [float(each[0][0]) for each in two["resps"]], rel=1e-4, abs=1e-4
            )
            prompt = one["arguments"][0][0]
            assert prompt.count("<|im_start|>assistant\n") == shots + 1
            assert ("注册会计师" in prompt) == (task == "ceval-valid_accountant")


def test_layouts(folder: Path, tmp_path: Path) -> None:
    mmlu_parquet(tmp_path)
    own = datasets.load_dataset
    with layouts.local_data(tmp_path):
        stored = datasets.load_dataset("cais/mmlu", "anatomy")
    with layouts.local_data(folder):
        published = datasets.load_dataset("cais/mmlu", "anatomy")
        chinese = datasets.load_dataset("ceval/ceval-exam", "accountant")
        with pytest.raises(RunError, match="has no files of cais/mmlu, subset astronomy"):
            datasets.load_dataset("cais/mmlu", "astronomy")
    assert datasets.load_dataset is own
    assert stored["test"].to_list() == published["test"].to_list()
    assert stored["dev"][1]["answer"] == 1
    assert set(published) >= {"dev", "test", "val", "validation"}
    assert chinese["val"][0]["id"] == "0"
    assert "answer" not in chinese["test"].column_names
    with layouts.local_data(None):
        assert datasets.load_dataset is own
    bad = tmp_path / "mmlu/dev/law_dev.csv"
    write_csv(bad, None, [["q", "a", "b", "c", "d", "A"], ["q", "a", "b", "c", "d", "E"]])
    with pytest.raises(RunError) as raised, layouts.local_data(tmp_path):
        datasets.load_dataset("cais/mmlu", "law")
    assert str(raised.value).startswith(f"{bad}:2: expected question")


def test_goes_on_where_it_was(
    run: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness_model, "_CHUNK", 1)
    options = ("tasks=cmmlu_agronomy", f"data_folder={folder}", "num_fewshot=0", "batch_size=4")
    whole = evaluate(run, tmp_path / "whole", *options)
    own, calls = harness_model.HFLM.loglikelihood, []

    def loglikelihood(model: Any, requests: list[Any], **more: Any) -> Any:
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(len(requests))
        return own(model, requests, **more)

    with monkeypatch.context() as patch:
        patch.setattr(harness_model.HFLM, "loglikelihood", loglikelihood)
        with pytest.raises(Stopped, match="the same command goes on"):
            evaluate(run, tmp_path / "out", *options)
    assert sum(calls) == 12
    calls.clear()
    monkeypatch.setattr(
        harness_model.HFLM,
        "loglikelihood",
        lambda model, requests, **more: (
            calls.append(len(requests)),
            own(model, requests, **more),
        )[1],
    )
    found = evaluate(run, tmp_path / "out", *options)
    assert sum(calls) == 24 - 12
    assert found["metrics"] == whole["metrics"]
    assert not (tmp_path / "out/requests.jsonl").exists()


@pytest.mark.long
def test_a_group(run: Path, tmp_path: Path) -> None:
    for path in (BUNDLED / "mmlu/default").glob("mmlu_*.yaml"):
        config = yaml.safe_load(path.read_text("utf-8"))
        if config.get("tag") == "mmlu_other_tasks":
            mmlu_csv(tmp_path, config["dataset_name"], count=2)
    options = ("tasks=mmlu_other", f"data_folder={tmp_path}", "num_fewshot=1", "limit=1")
    found = evaluate(run, tmp_path / "out", *options)
    assert list(found["metrics"]) == ["mmlu_other/acc"]
    parts = [values["acc"] for name, values in found["parts"].items()]
    assert len(parts) == found["rows"] == 13
    assert found["metrics"]["mmlu_other/acc"] == pytest.approx(sum(parts) / 13)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (("tasks=cmmlu_agronmy",), RecipeError, "did you mean 'cmmlu_agronomy'"),
        (("tasks=cmmlu_agronomy", "data_folder=nowhere"), RecipeError, "there is no such folder"),
        ((), RecipeError, "tasks: is missing"),
    ],
    ids=["task", "folder", "none"],
)
def test_mistakes(
    run: Path, tmp_path: Path, options: tuple[str, ...], error: Any, message: str
) -> None:
    with pytest.raises(error) as raised:
        evaluate(run, tmp_path / "out", *options)
    assert message in str(raised.value)
