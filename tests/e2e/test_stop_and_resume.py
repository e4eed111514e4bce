"""SIGTERM in the middle of a real run, and SIGKILL: resumed equals uninterrupted, bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
STEPS = 30
OVERRIDES = [
    f"training.max_steps={STEPS}",
    "training.logging_steps=1",
    "training.save_steps=5",
    "family.tiny_hidden_size=64",
    "family.tiny_layers=2",
    "template=chatml",
    "loggers=[jsonl]",
]


def start(output: str, cwd: Path, *more: str) -> subprocess.Popen[str]:
    recipe = EXAMPLES / "quickstart.yaml"
    command = [
        sys.executable,
        "-m",
        "tunewright",
        "train",
        str(recipe),
        f"output={output}",
        *OVERRIDES,
        *more,
    ]
    return subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def stop_after(
    step: int, process: subprocess.Popen[str], run: Path, number: signal.Signals
) -> tuple[int, str]:
    """Send the signal once the step is logged. Gives exit code and standard error."""
    metrics, deadline = run / "metrics.jsonl", time.monotonic() + 300
    while not (metrics.exists() and f'"step": {step},' in metrics.read_text()):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, error = process.communicate(timeout=300)
    return process.returncode, error


def result(run: Path) -> tuple[dict[str, bytes], list[dict]]:
    weights = {path.name: path.read_bytes() for path in (run / "model").glob("*.safetensors")}
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timing = ("time", "tokens_per_second", "memory")
    return weights, [{k: v for k, v in line.items() if k not in timing} for line in logged]


@pytest.mark.slow
@pytest.mark.skipif(
    os.name == "nt", reason="Windows has neither SIGTERM nor SIGKILL for other processes"
)
@pytest.mark.parametrize(
    "adapter",
    ["adapter=full", pytest.param("adapter={name: lora, dropout: 0.1}", marks=pytest.mark.long)],
)
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, adapter):
    whole = start("whole", tmp_path, adapter)
    _, error = whole.communicate(timeout=600)
    assert whole.returncode == 0, error

    code, error = stop_after(
        5, start("parts", tmp_path, adapter), tmp_path / "parts", signal.SIGTERM
    )
    assert code == 130
    assert "error: stopped and saved at step" in error
    assert "go on with: tunewright train parts/recipe.yaml --resume" in error

    killed = start("parts", tmp_path, adapter, "--resume")
    code, _ = stop_after(15, killed, tmp_path / "parts", signal.SIGKILL)
    assert code == -signal.SIGKILL

    command = [sys.executable, "-m", "tunewright", "train", "parts/recipe.yaml", "--resume"]
    resumed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert resumed.returncode == 0, resumed.stderr
    assert result(tmp_path / "parts") == result(tmp_path / "whole")
