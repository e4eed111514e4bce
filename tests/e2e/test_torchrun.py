"""Hosts that come and go under launcher torchrun: two agents on this host, of which one is lost and
returns."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.test_elastic import RECIPE
from forked import free_port
from tunewright.run import train
from tunewright_hf.checkpoints.folder import step_folders

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.name == "nt", reason="Windows has no process groups"),
]
ROWS = ["training.batching=random", "training.rows_per_step=24"]
ROWS += ["training.lr_scheduler_type=constant", "training.per_device_train_batch_size=2"]


class Host:
    """An agent in a process group of its own."""

    def __init__(self, folder: Path, name: str, port: int, *words: str) -> None:
        launch = f"launch={{nodes: '1:2', restarts: 5, last_call: 3, main_port: {port}}}"
        command = [sys.executable, "-m", "tunewright", "train", "recipe.yaml", *ROWS, launch]
        self.error = folder / f"{name}.txt"
        with self.error.open("w") as error:
            self.process = subprocess.Popen(
                [*command, "output=run", "training.max_steps=100000", *words],
                cwd=folder,
                stdout=error,
                stderr=error,
                start_new_session=True,
            )

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(60)


def ranks(run: Path) -> tuple[int, int]:
    """Step and number of ranks of the newest checkpoint."""
    for folder in reversed(step_folders(run / "checkpoints")):
        try:
            found = json.loads((folder / "manifest.json").read_text())
        except OSError:  # it is being removed
            continue
        return found["step"], found["world_size"]
    return 0, 0


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def until(found: Callable[[], bool], hosts: list[Host], seconds: float = 400) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        said = "\n".join(host.error.read_text()[-3000:] for host in hosts)
        assert time.monotonic() < deadline and hosts[0].process.poll() is None, said
        time.sleep(0.2)


def test_a_host_is_lost_and_returns(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.replace("save_steps: 3", "save_steps: 10"))
    run, port = tmp_path / "run", free_port()
    hosts = [Host(tmp_path, "a", port)]
    try:
        until(lambda: listens(port), hosts)  # the first one holds the store: it has to stay
        hosts.append(Host(tmp_path, "b", port))
        until(lambda: ranks(run)[1] == 2 and ranks(run)[0] >= 20, hosts)
        hosts[1].kill()
        until(lambda: ranks(run)[1] == 1, hosts)
        hosts.append(Host(tmp_path, "c", port, "--resume"))
        until(lambda: ranks(run)[1] == 2, hosts)
        hosts[2].kill()
        hosts[0].process.terminate()
        assert hosts[0].process.wait(120) in (1, 130)
    finally:
        for host in hosts:
            if host.process.poll() is None:
                host.kill()
    lines = (run / "metrics.jsonl").read_text().splitlines()
    found = {line["step"]: line["loss"] for line in map(json.loads, lines)}
    last = min(max(found), 400)
    assert sorted(found)[:last] == list(range(1, last + 1))
    train(recipe, overrides=[*ROWS, f"output={tmp_path / 'one'}", f"training.max_steps={last}"])
    lines = (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()
    whole = {line["step"]: line["loss"] for line in map(json.loads, lines)}
    assert [found[step] for step in whole] == pytest.approx(list(whole.values()), abs=5e-6)
