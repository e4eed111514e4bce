"""A tracker that is down, hangs or cannot write neither stops nor slows a run: all six at once, in
a process of their own, which has to end."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from envs.trackers.stream import LIBRARIES, needs_trackers

pytestmark = [needs_trackers, pytest.mark.slow]
PROGRAM = """
import json, sys, threading, time
from pathlib import Path

from envs.trackers.stream import a_run, finished, stage, started, step
from tunewright import registry, report

if sys.argv[3] == "full":  # a file that is longer cannot be written, as on a full disk
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
report.PATIENCE = 5.0
folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
callers = []
for name, given in options.items():
    plugin = registry.load(entry := registry.find("logger", name))
    callers.append(registry.PluginCaller(entry, plugin(plugin.Options(**given), name)))
reporter = report.Reporter(a_run(folder), callers)
reporter.emit(started(folder))
reporter.emit(stage(0))
for number in range(1, 101):
    for event in step(number):
        reporter.emit(event)
reporter.emit(finished())
muted = reporter.close()
print("RESULT " + json.dumps(muted), flush=True)
"""


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        yield server.getsockname()[1]


def run(
    folder: Path, case: str, options: dict[str, dict[str, str]], **env: str
) -> tuple[dict[str, str], int]:
    """Which loggers were muted, and how many lines jsonl wrote. Fails where the process hangs."""
    folder.mkdir()
    options = {**options, "jsonl": {}}
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), json.dumps(options), case],
        env={**os.environ, "PYTHONPATH": path, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,  # of which most is for the imports of six libraries, at the same time
        check=False,
    )
    (result,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(result[7:]), len((folder / "metrics.jsonl").read_text().splitlines())


@pytest.mark.parametrize("case", ["down", "hangs"])
def test_a_server_that_does_not_answer(tmp_path: Path, case: str, silent_port: int) -> None:
    url = f"http://127.0.0.1:{9 if case == 'down' else silent_port}"
    options = {name: {"mode": "online"} for name in ("wandb", "swanlab", "comet")}
    options |= {"mlflow": {"tracking_uri": url}, "trackio": {}}
    options |= {"aim": {"repo": url.replace("http", "aim")}}
    key = "a" * 40
    env = {f"{name}_API_KEY": key for name in ("WANDB", "SWANLAB", "COMET")}
    env |= {"WANDB_BASE_URL": url, "SWANLAB_API_HOST": url, "COMET_URL_OVERRIDE": url}
    env |= {"TRACKIO_SERVER_URL": url, "TRACKIO_WRITE_TOKEN": key}
    muted, lines = run(tmp_path / "run", case, options, **env)
    assert lines == 100
    assert {"wandb", "mlflow", "swanlab", "comet", "aim"} <= muted.keys()
    assert "jsonl" not in muted


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of the size of files")
def test_a_full_disk(tmp_path: Path) -> None:
    options = {name: {"mode": "offline"} for name in ("wandb", "swanlab", "comet")}
    options |= {name: {} for name in LIBRARIES if name not in options}
    env = {"TRACKIO_DIR": str(tmp_path / "trackio")}
    _, lines = run(tmp_path / "run", "full", options, **env)
    assert lines > 0  # jsonl wrote what fits into 4096 bytes
