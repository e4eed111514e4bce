"""Signals to real commands with several processes: each of them ends, nothing is left behind, and
the run goes on afterwards."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from forked import free_port
from tunewright_hf.checkpoints.folder import latest_checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="Windows has no signals between processes"),
]

TUNEWRIGHT = [sys.executable, "-m", "tunewright"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    asked = [{"prompt": f"What is {number}?", "completion": "wren " * 4} for number in range(64)]
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in asked), "utf-8")
    return {
        "model": "tiny",
        "family": {"name": "qwen", "device": "cpu", "tiny_hidden_size": 16, "tiny_layers": 1},
        "template": "chatml",
        "data": [{"path": "a.jsonl"}],
        "stage": "sft",
        "training": {
            "max_steps": 300,
            "logging_steps": 1,
            "lr_scheduler_type": "constant",
            "per_device_train_batch_size": 2,
        },
        "loggers": ["jsonl"],
        "launch": {"processes": 2, "main_port": free_port()},
        "output": "out",
    }


class Command:
    """A command in a process group of its own, as a shell starts it."""

    def __init__(self, folder: Path, recipe: dict[str, Any], *words: str) -> None:
        self.folder = folder
        (folder / "recipe.yaml").write_text(json.dumps(recipe), "utf-8")
        self.error = folder / "error.txt"
        with self.error.open("w") as error:
            self.process = subprocess.Popen(
                words,
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=error,
                env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
                start_new_session=True,
            )

    def wait_for(self, event: str) -> list[psutil.Process]:
        """Until the run has reported such an event. Returns all processes that it consists of."""
        events, deadline = self.folder / "out" / "events.jsonl", time.monotonic() + 120
        while not (events.exists() and f'"event": "{event}"' in events.read_text("utf-8")):
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)
        return psutil.Process(self.process.pid).children(recursive=True)

    def said(self) -> str:
        return self.error.read_text("utf-8")

    def ended(self, others: list[psutil.Process]) -> int:
        code = self.process.wait(timeout=120)
        _, alive = psutil.wait_procs(others, timeout=30)
        assert not alive
        return code


def steps(folder: Path) -> int:
    checkpoint = latest_checkpoint(folder / "out" / "checkpoints")
    return int(checkpoint.name.removeprefix("step-")) if checkpoint else 0


@pytest.mark.parametrize(
    "how", ["SIGTERM", "Ctrl-C", pytest.param("SIGHUP", marks=pytest.mark.long)]
)
def test_all_ranks_save_and_end_and_the_run_goes_on(
    tmp_path: Path, recipe: dict[str, Any], how: str
) -> None:
    command = Command(tmp_path, recipe, *TUNEWRIGHT, "train", "recipe.yaml")
    others = command.wait_for("Logged")
    assert len(others) >= 2
    if how == "Ctrl-C":  # which the terminal sends to all processes of its foreground
        os.killpg(command.process.pid, signal.SIGINT)
    else:
        os.kill(command.process.pid, getattr(signal, how))
    assert command.ended(others) == 130
    first, *rest = command.said().splitlines()
    assert first.startswith("stopping: a run that trains saves first")
    assert [line for line in rest if line.startswith(("error", "stopping", "Traceback"))] == [
        f"error: stopped and saved at step {steps(tmp_path)} of 300 (go on with: tunewright "
        "train out/recipe.yaml --resume)"
    ]
    if how == "SIGTERM":
        again = Command(tmp_path, recipe, *TUNEWRIGHT, "train", "recipe.yaml", "--resume")
        assert again.process.wait(timeout=120) == 0, again.said()
        state = json.loads((tmp_path / "out/run.json").read_text("utf-8"))
        assert state["status"] == "completed"
        assert state["stages"][0]["steps"] == 300


#: imported by each Python: a disk on which half a second passes for each file of a checkpoint
SLOW_DISK = """
import os, pathlib, time
own = os.fsync
def fsync(file):
    if "checkpoints" in os.readlink(f"/proc/self/fd/{file}"):
        pathlib.Path("saving").touch()
        time.sleep(0.5)
    own(file)
os.fsync = fsync
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("patience", "is_saved"),
    [(None, True), pytest.param("1", False, marks=pytest.mark.long)],  # seconds of torchrun
)
def test_a_save_that_takes_long_is_finished(
    tmp_path: Path,
    recipe: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    patience: str | None,
    is_saved: bool,
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_DISK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    if patience:
        monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", patience)
    # the signal arrives while a checkpoint is being written
    recipe["training"] |= {"save_steps": 5, "max_steps": 100_000}
    command = Command(tmp_path, recipe, *TUNEWRIGHT, "train", "recipe.yaml")
    others = command.wait_for("Logged")
    while not (tmp_path / "saving").exists():
        assert command.process.poll() is None, command.said()
        time.sleep(0.02)
    os.kill(command.process.pid, signal.SIGTERM)
    assert command.ended(others) == 130
    assert bool(steps(tmp_path)) is is_saved
    if is_saved:
        assert f"stopped and saved at step {steps(tmp_path)} of" in command.said()


def test_torchrun_that_the_user_started(tmp_path: Path, recipe: dict[str, Any]) -> None:
    port = f"--master-port={recipe['launch']['main_port']}"
    words = [*TORCHRUN, port, "--module", "tunewright", "train", "recipe.yaml"]
    command = Command(tmp_path, recipe, *words)
    others = command.wait_for("Logged")
    os.kill(command.process.pid, signal.SIGTERM)
    command.ended(others)
    assert "stopping: a run that trains saves first" in command.said()
    assert f"error: stopped and saved at step {steps(tmp_path)} of" in command.said()


@pytest.mark.parametrize("how", ["Ctrl-C twice", "SIGKILL"])
def test_nobody_is_left(tmp_path: Path, recipe: dict[str, Any], how: str) -> None:
    recipe["training"] |= {"eval_steps": 1, "save_steps": 1}
    command = Command(tmp_path, recipe, *TUNEWRIGHT, "train", "recipe.yaml")
    others = command.wait_for("Logged")
    if how == "SIGKILL":
        command.process.kill()
    else:
        for other in others:  # so that there is a second time: they do not save and end meanwhile
            other.suspend()
        os.killpg(command.process.pid, signal.SIGINT)
        while "stopping" not in command.said():
            time.sleep(0.02)
        os.killpg(command.process.pid, signal.SIGINT)
        command.process.wait(timeout=30)
        for other in others:
            other.resume()
    assert command.ended(others) == (-signal.SIGKILL if how == "SIGKILL" else 130)
    assert "Traceback" not in command.said()


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM to all", "SIGKILL"])
def test_workers_that_prepare_data_end_with_the_command(
    tmp_path: Path, recipe: dict[str, Any], how: str
) -> None:
    rows = (tmp_path / "a.jsonl").read_text("utf-8")
    with (tmp_path / "a.jsonl").open("a", encoding="utf-8") as file:
        for _ in range(5000):
            file.write(rows)
    recipe |= {"launch": {}, "dataset": {"name": "chat", "workers": 2, "cache": "cache"}}
    command = Command(tmp_path, recipe, *TUNEWRIGHT, "train", "recipe.yaml")
    others, deadline = [], time.monotonic() + 120
    while len(others) < 3:  # the workers, which import now, and the helper of multiprocessing
        assert command.process.poll() is None, command.said()
        assert time.monotonic() < deadline
        others = psutil.Process(command.process.pid).children(recursive=True)
        time.sleep(0.02)
    if how == "Ctrl-C":
        time.sleep(0.5)  # any time would do: they import for seconds
    else:
        while not any(
            path.stat().st_size > 10_000_000
            for path in (tmp_path / "cache").glob(".*.new/rows.arrow")
        ):
            assert command.process.poll() is None, command.said()
            time.sleep(0.02)
    if how == "SIGKILL":
        command.process.kill()
    else:
        number = signal.SIGINT if how == "Ctrl-C" else signal.SIGTERM
        os.killpg(command.process.pid, number)
    code = command.ended(others)
    if how == "SIGKILL":
        assert command.said() == ""
        return
    assert code == 130
    first, *rest = command.said().splitlines()
    assert first.startswith("stopping: a run that trains saves first")
    assert len(rest) == 1 and rest[0].startswith("error: stopped as asked (go on with:")
    assert not list((tmp_path / "cache").glob(".*.new"))
