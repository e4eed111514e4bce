"""Rows as the model sees them, and plans: child processes with the commands' own answers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tunewright_web import looking, work
from tunewright_web.errors import WebError
from tunewright_web.values import as_yaml

GOOD = [
    {
        "messages": [
            {"role": "user", "content": f"Hello {n}"},
            {"role": "assistant", "content": "Hi"},
        ]
    }
    for n in range(12)
]
RECIPE = {
    "model": "tiny",
    "family": "qwen",
    "template": "chatml",
    "data": [{"path": "rows.jsonl"}],
    "stage": "sft",
    "training": {"max_length": 64, "epochs": 2, "per_device_train_batch_size": 4},
    "output": "runs/first",
}


def write(file: Path, rows: list[object]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_preview_is_that_of_the_command(web, client):  # check 15
    """Spans, ratio and a broken row with file and line; the server has no torch."""
    root = web.workspace.root
    write(root / "rows.jsonl", [*GOOD[:3], {"messages": "no list"}, *GOOD[3:]])
    answer = client.post("/api/v1/preview", json={"recipe": RECIPE, "count": 2})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["rows"] == 13 and len(found["lengths"]) == 12
    assert any(line.startswith("rows.jsonl:4: ") for line in found["bad"])
    assert found["samples"][0]["origin"] == "rows.jsonl:1"
    trained = "".join(text for text, is_trained in found["samples"][0]["pieces"] if is_trained)
    assert trained == "Hi<|im_end|>"
    write(root / "rows.jsonl", GOOD)
    (root / "recipe.yaml").write_text(as_yaml(RECIPE))
    command = [sys.executable, "-m", "tunewright", "data", "preview", "recipe.yaml", "--json"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    theirs = json.loads(done.stdout)
    ratio = theirs["trained_tokens"] / sum(theirs["lengths"])
    assert found["trained_share"] == ratio
    assert sum(count for _, _, count in found["bars"]) == 12


def test_steps_of_the_plan_are_those_of_the_run(web, client):  # check 19
    root = web.workspace.root
    write(root / "rows.jsonl", GOOD)
    answer = client.post("/api/v1/plan", json={"recipe": RECIPE})
    assert answer.status_code == 200, answer.text
    (root / "recipe.yaml").write_text(as_yaml(RECIPE))
    command = [sys.executable, "-m", "tunewright", "train", "recipe.yaml"]
    subprocess.run(command, cwd=root, capture_output=True, check=True)
    state = json.loads((root / "runs/first/run.json").read_text())
    assert answer.json()["stages"][0]["steps"] == state["stages"][0]["steps"]


def test_a_failed_look_says_what_the_command_said(web, client):
    write(web.workspace.root / "rows.jsonl", GOOD)
    recipe = {**RECIPE, "template": "bogus"}
    answer = client.post("/api/v1/preview", json={"recipe": recipe})
    assert answer.status_code == 422
    assert "no installed plugin gives the template 'bogus'" in answer.json()["error"]


@pytest.mark.parametrize(("recipe", "said"), [({}, "no model"), ({"model": "tiny"}, "no data")])
def test_what_is_missing_is_said_before_a_process_starts(web, monkeypatch, recipe, said):
    monkeypatch.setattr(work, "ask", None)
    with pytest.raises(WebError, match=said):
        looking.preview(recipe, web.workspace, key="a")


@pytest.mark.parametrize(
    ("row", "stage"),
    [
        (GOOD[0], "sft"),
        ({"text": "a document"}, "pretrain"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "dpo"),
        ({"unheard": "of"}, "sft"),
    ],
)
def test_the_stage_that_fits_the_data_is_suggested(web, row, stage):
    write(web.workspace.root / "rows.jsonl", [row] * 3)
    assert looking.usual_stage({"data": [{"path": "rows.jsonl"}]}, web.workspace) == stage
    assert looking.usual_stage({"data": [{"path": "none.jsonl"}]}, web.workspace) == "sft"


def test_standard_error_is_in_the_answer(web):
    answer = work.ask(["recipe", "check", "RECIPE"], "model: 1", web.workspace.root, key="a")
    assert answer.code == 2 and "recipe.yaml:1: model" in answer.said


def test_a_second_request_ends_the_first(web, monkeypatch):
    """Children end: of a newer request, and after the time they have."""
    monkeypatch.setattr(sys, "executable", str(fake(web.workspace.root)))
    from tunewright.errors import RunError

    with pytest.raises(RunError, match="took longer than"):
        work.ask(["sleep"], "", web.workspace.root, key="b", seconds=0.5)
    assert not work._running


def fake(folder: Path) -> Path:
    """An interpreter that sleeps."""
    file = folder / "python"
    file.write_text("#!/bin/sh\nsleep 60\n")
    file.chmod(0o755)
    return file


@pytest.mark.parametrize("lengths", [[0], [1], [5, 5, 5], [1, 10, 100, 1000], list(range(50))])
def test_bars_hold_every_length_once(lengths):
    bars = looking.histogram(sorted(lengths))
    assert sum(count for _, _, count in bars) == len(lengths)
    for low, high, count in bars:
        assert count == sum(low <= length <= high for length in lengths)
