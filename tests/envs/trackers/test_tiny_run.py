"""A real run with all trackers beside each other, from the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from envs.trackers import readers
from envs.trackers.stream import LIBRARIES, OFFLINE, needs_trackers

pytestmark = [needs_trackers, pytest.mark.slow]
EXAMPLES = Path(__file__).parents[3] / "docs/examples"


def test_a_run_is_in_every_tracker(tmp_path: Path, trackio_dir: Path) -> None:
    output = tmp_path / "run"
    loggers = [
        {"name": name, "project": "birds", "notes": "n", **OFFLINE.get(name, {})}
        for name in LIBRARIES
    ]
    changes = [f"loggers={json.dumps([*loggers, 'jsonl'])}", f"output={output}"]
    changes += ["training.max_steps=3", "training.logging_steps=1"]
    command = [sys.executable, "-m", "tunewright", "train", EXAMPLES / "loggers/wandb.yaml"]
    done = subprocess.run(
        [*command, *changes],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "muted" not in done.stdout + done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    lines = (output / "metrics.jsonl").read_text().splitlines()
    losses = {row["step"]: row["loss"] for row in map(json.loads, lines)}
    assert sorted(losses) == [1, 2, 3]
    for name in LIBRARIES:
        found = getattr(readers, name)(output)
        assert found.metrics["train/loss"] == pytest.approx(losses), name
        assert found.config["recipe"]["model"] == "tiny"
