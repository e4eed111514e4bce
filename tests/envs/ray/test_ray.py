"""Launcher ray on a cluster of its own: `python scripts/dev.py env ray`."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from e2e.test_elastic import RECIPE
from tunewright.run import train

pytestmark = pytest.mark.long
ROWS = ["training.batching=random", "training.rows_per_step=4", "training.max_steps=60"]
ROWS += ["training.per_device_train_batch_size=2"]


class Run:
    """A run on Ray, in a process group of its own."""

    def __init__(self, folder: Path, *words: str) -> None:
        (folder / "recipe.yaml").write_text(RECIPE.replace("save_steps: 3", "save_steps: 10"))
        self.folder, self.error = folder / "run", folder / "error.txt"
        launch = f"launch={{name: ray, processes: 2, max_failures: 2, storage: {folder / 'ray'}}}"
        command = [sys.executable, "-m", "tunewright", "train", "recipe.yaml", *ROWS, launch]
        with self.error.open("w") as error:
            self.process = subprocess.Popen(
                [*command, "output=run", *words], cwd=folder, stdout=error, stderr=error
            )

    def until(self, found: Callable[[], bool], seconds: float = 400) -> None:
        deadline = time.monotonic() + seconds
        while not found():
            said = self.error.read_text()[-4000:]
            assert time.monotonic() < deadline and self.process.poll() is None, said
            time.sleep(0.1)

    def has(self, step: int) -> bool:
        return (self.folder / "checkpoints" / f"step-{step}" / "manifest.json").exists()

    def ended(self) -> int:
        try:
            return self.process.wait(400)
        finally:
            self.process.kill()


def test_a_worker_that_is_lost(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.until(lambda: run.has(20))
    os.kill(json.loads((run.folder / "run.json").read_text())["running"]["pid"], signal.SIGKILL)
    assert run.ended() == 0, run.error.read_text()[-4000:]
    assert json.loads((run.folder / "run.json").read_text())["resumed"]
    whole = train(tmp_path / "recipe.yaml", overrides=[*ROWS, f"output={tmp_path / 'one'}"])
    expected, found = (
        load_file(path / "model.safetensors") for path in (whole.path, run.folder / "model")
    )
    assert all(torch.allclose(found[name], expected[name], atol=2e-6) for name in expected)


def test_a_stop_is_handed_through(tmp_path: Path) -> None:
    run = Run(tmp_path, "training.max_steps=100000")
    run.until(lambda: run.has(10))
    run.process.terminate()
    assert run.ended() == 130, run.error.read_text()[-4000:]
    state = json.loads((run.folder / "run.json").read_text())
    assert state["status"] == "interrupted"
    assert "stopped and saved at step" in run.error.read_text()


def test_a_mistake_is_not_tried_again(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").touch()
    run = Run(tmp_path)
    assert run.ended() in (1, 2)
    said = run.error.read_text()
    assert "is not empty, and holds no run of ours" in said
