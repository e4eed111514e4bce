"""A workspace with trained runs, and the process of a server on it."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import psutil
from playwright.sync_api import Page

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    **os.environ,
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
#: of the first line that the server prints
_PRINTED = re.compile(r"(http://[\w.:\[\]-]+(?:/[\w/.-]*)?)\?token=([\w-]+)")

__all__ = ["ENVIRONMENT", "ROOT", "Workbench", "make_workspace"]

#: trains two runs in one process, since importing torch takes longer than both
_TRAIN = """
import tunewright
longer = ["training.max_steps=60", "training.learning_rate=3e-3", "output=runs/longer"]
for overrides in ([], longer):
    tunewright.train("recipe.yaml", overrides=overrides)
"""
RECIPE = """\
model: tiny
family: qwen
template: qwen3
data:
  - path: data/greetings.jsonl
eval_data:
  held_out:
    - path: data/held_out.jsonl
stage: sft
training:
  learning_rate: 1e-2
  max_steps: 40
  per_device_train_batch_size: 4
  max_length: 256
  logging_steps: 1
  eval_steps: 20
  save_steps: 20
output: runs/greeter
"""
_NAMES = ("Ann", "Ben", "Cid", "Dan", "Eve", "Fay", "Gus", "Hal", "Ida", "Joe", "Kim", "Leo")


def make_workspace(folder: Path) -> None:
    """Write data and a recipe, and train two runs, of 40 and 60 steps."""
    data = folder / "data"
    data.mkdir(parents=True)
    rows = [{"instruction": f"Say hello to {n}.", "output": f"Hello, {n}!"} for n in _NAMES]
    for name, some in (("greetings", rows[:10]), ("held_out", rows[10:])):
        lines = [json.dumps(row) + "\n" for row in some]
        (data / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    command = [sys.executable, "-c", _TRAIN]
    done = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


@dataclass
class Workbench:
    """The process of `tunewright web` on a workspace."""

    folder: Path
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    token: str = ""
    process: subprocess.Popen[bytes] | None = None
    log: Path = field(init=False)

    def start(self, port: int = 0) -> None:
        """Start it, and wait for the address that it prints."""
        self.log = self.folder.parent / f"{self.folder.name}.log"
        begins = self.log.stat().st_size if self.log.exists() else 0
        command = [sys.executable, "-m", "tunewright", "web", "--port", str(port), *self.arguments]
        env = {**ENVIRONMENT, **self.environment}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=env, stdout=log, stderr=subprocess.STDOUT
            )
        end = time.monotonic() + 60
        while (printed := _PRINTED.search(self.said()[begins:])) is None:
            assert self.process.poll() is None, self.said()[begins:]
            assert time.monotonic() < end, self.said()[begins:]
            time.sleep(0.05)
        self.address, self.token = printed[1].rstrip("/"), printed[2]
        while not self._listens():  # the address is printed just before
            assert time.monotonic() < end, self.said()[begins:]
            time.sleep(0.02)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def said(self) -> str:
        return self.log.read_text("utf-8", errors="replace")

    @property
    def port(self) -> int:
        return int(self.address.split(":")[2].split("/")[0])

    def enter(self, page: Page, path: str = "/") -> None:
        """Open a page with the token, as the printed URL does."""
        page.goto(f"{self.address}/?token={self.token}")
        if path != "/":
            page.goto(f"{self.address}{path}")

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it with a signal. Training goes on."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(20)

    def end_jobs(self) -> None:
        """Kill what its jobs have started: trainings outlive the server."""
        for file in (self.folder / ".tunewright/jobs").glob("*/pid"):
            pids = json.loads(file.read_text("utf-8"))
            for name in ("shepherd", "child"):
                with contextlib.suppress(psutil.NoSuchProcess):
                    found = psutil.Process(pids[name])
                    if str(self.folder) in " ".join(found.cmdline()):
                        found.kill()

    def api(
        self, path: str, body: Any = None, *, method: str | None = None, **headers: str
    ) -> tuple[int, Any]:
        """Status and JSON of a request to /api/v1 with the token."""
        request = urllib.request.Request(  # noqa: S310 - an address of our own
            f"{self.address}/api/v1{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"} | headers,
            method=method or ("GET" if body is None else "POST"),
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                return answer.status, json.loads(answer.read() or b"null")
        except HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def copy_run(self, name: str, to: str, **state: Any) -> Path:
        """Copy a run folder; its run.json gets what is given."""
        folder = self.folder / "runs" / to
        shutil.copytree(self.folder / "runs" / name, folder)
        file = folder / "run.json"
        found = json.loads(file.read_text("utf-8")) | state
        found["recipe"]["output"] = str(folder)
        file.write_text(json.dumps(found), encoding="utf-8")
        return folder
