"""A checkpoint with code of its own, as a user trains it: trained, saved, talked to and trained
on."""

import json
from pathlib import Path

import pytest

from e2e.test_quickstart import tunewright
from stand_in import write_stand_in
from tunewright import registry
from tunewright.types import LoadRequest
from tunewright_conformance.doubles import FakeRun

RECIPE = """
model: {model}
family: {{name: llama, device: cpu}}
template: llama2
adapter: {adapter}
data: [{{path: rows.jsonl}}]
stage: sft
training: {{max_steps: 3, per_device_train_batch_size: 4, learning_rate: 1e-3, max_length: 64}}
output: {output}
"""


@pytest.fixture
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    llama = registry.load(registry.find("family", "llama"))
    tiny = llama(llama.Options(device="cpu", tiny_variant="llama2"), "")

    tokenizer = tiny.load_model(FakeRun(), LoadRequest("tiny", weights="none")).tokenizer
    write_stand_in(tmp_path / "stand_in", tokenizer, num_nextn_predict_layers=1)
    row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(row)}\n" * 8)
    return tmp_path


def train(cwd: Path, model: str, adapter: str) -> list[float]:
    """Losses by step."""
    recipe = cwd / f"{adapter}.yaml"
    output = f"runs/{Path(model).parts[0]}-{adapter}"
    recipe.write_text(RECIPE.format(model=model, adapter=adapter, output=output))
    tunewright("train", recipe, "--trust-remote-code", cwd=cwd)
    tunewright("chat", output, "--trust-remote-code", "-m", "Hi", "--max-new-tokens", "8", cwd=cwd)
    logged = (cwd / output / "metrics.jsonl").read_text().splitlines()
    return [row["loss"] for row in map(json.loads, logged) if "loss" in row]


@pytest.mark.slow
def test_trained_saved_and_talked_to(cwd: Path) -> None:
    first, second = train(cwd, "stand_in", "full"), train(cwd, "stand_in", "lora")
    assert first[0] == pytest.approx(second[0], rel=1e-5)
    assert first[-1] < first[0]
    assert (cwd / "runs/stand_in-full/model/modeling_stand_in.py").is_file()
    again = train(cwd, "runs/stand_in-full/model", "lora")
    assert again[0] < first[-1]
