"""The README's promise, as a user types it: train, look at the loss, and ask the model
something."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tunewright import cli

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"


def tunewright(
    *arguments: str | Path, cwd: Path, code: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, off line. Fails with its output where the exit
    code differs."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "tunewright", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == code, (
        f"exit code {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    )
    return done


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the quickstart was run, with runs/quickstart in it."""
    cwd = tmp_path_factory.mktemp("quickstart")
    tunewright("train", EXAMPLES / "quickstart.yaml", cwd=cwd)
    return cwd


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (EXAMPLES / "data" / name).read_text("utf-8").splitlines()]


@pytest.mark.slow
def test_the_run_folder_is_complete(trained):
    run = trained / "runs" / "quickstart"
    assert {path.name for path in run.iterdir()} >= {
        "recipe.yaml",
        "run.json",
        "metrics.jsonl",
        "loss.png",
        "README.md",
        "model",
    }
    state = json.loads((run / "run.json").read_text())
    assert state["status"] == "completed"
    assert state["plugins"]["stage sft"].startswith("tunewright-sft")
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {
        "step",
        "epoch",
        "loss",
        "learning_rate",
        "tokens",
        "tokens_per_second",
        "memory",
    } <= logged[0].keys()
    assert logged[-1]["loss"] < 0.3 < 3 < logged[0]["loss"]
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert not [path for path in run.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl")]


@pytest.mark.slow
def test_the_trained_model_answers_trained_questions(trained, monkeypatch, capsys):
    asked = [row["messages"] for row in rows("wren.jsonl") if len(row["messages"]) == 2][::20]
    assert len(asked) >= 4
    monkeypatch.chdir(trained)
    right = 0
    for question, answer in asked:
        monkeypatch.setattr(
            sys, "argv", ["tunewright", "chat", "runs/quickstart", "--message", question["content"]]
        )
        with pytest.raises(SystemExit, check=lambda end: not end.code):
            cli.main()
        right += capsys.readouterr().out.strip() == answer["content"].strip()
    assert right >= len(asked) - 1


@pytest.mark.slow
def test_the_lora_variant_changes_the_voice(trained):
    before = {path: path.read_bytes() for path in (trained / "runs/quickstart/model").iterdir()}
    tunewright("train", EXAMPLES / "quickstart-lora.yaml", cwd=trained)
    lora = trained / "runs" / "quickstart-lora"
    assert (lora / "model" / "adapter_model.safetensors").is_file()
    turns = rows("wren_pirate.jsonl")[0]["conversations"]
    said = tunewright("chat", lora, "--message", turns[0]["value"], cwd=trained).stdout.strip()
    assert said == turns[1]["value"].strip()
    assert {path: path.read_bytes() for path in before} == before  # the base model is as it was


@pytest.mark.slow
def test_smoke_tries_every_part_on_the_tiny_twin(tmp_path):
    recipe = (
        (EXAMPLES / "quickstart.yaml")
        .read_text("utf-8")
        .replace("model: tiny", "model: Qwen/Qwen3-0.6B")
    )
    (tmp_path / "data").symlink_to(EXAMPLES / "data")
    (tmp_path / "big.yaml").write_text(recipe)
    tunewright("train", "big.yaml", "--smoke", "adapter=lora", "stage.packing=true", cwd=tmp_path)
    state = json.loads((tmp_path / "runs/quickstart-smoke/run.json").read_text())
    assert state["status"] == "completed"
    assert state["stages"][0]["steps"] == 3
    assert state["stages"][0]["weights"] == "adapter"
    assert not (tmp_path / "runs/quickstart").exists()
