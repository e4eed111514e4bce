"""The folder of a user of LLaMA-Factory."""

import json
from pathlib import Path

import pytest

MODEL = "Qwen/Qwen3-4B-Instruct-2507"
LEAST = {"model_name_or_path": MODEL, "dataset": "greetings", "output_dir": "saves/out"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which LLaMA-Factory would be started."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    rows = [{"instruction": "Say hello.", "input": "", "output": "Hello!"}] * 4
    (tmp_path / "data/greetings.json").write_text(json.dumps(rows))
    info = {"greetings": {"file_name": "greetings.json"}, "pairs": {"file_name": "pairs.json"}}
    (tmp_path / "data/dataset_info.json").write_text(json.dumps(info))
    return tmp_path
