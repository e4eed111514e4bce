"""MLflow against a server on this machine, a store that runs share, and a store of files."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from envs.trackers import readers
from envs.trackers.stream import needs_trackers, run_twice

pytestmark = [
    needs_trackers,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="the server is ended as a process group"),
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of `mlflow server`, with a database and artifacts of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = tmp_path / "server"
    store.mkdir()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    command += ["--port", str(port), "--backend-store-uri", f"sqlite:///{store / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(store / "artifacts")]
    url = f"http://127.0.0.1:{port}"
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=store, stdout=log, stderr=log, start_new_session=True
        )
        try:
            deadline = time.monotonic() + 120
            while not _answers(url):
                assert process.poll() is None, (tmp_path / "server.log").read_text()[-2000:]
                assert time.monotonic() < deadline, "mlflow server did not start"
                time.sleep(0.3)
            yield url
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # with its workers
            process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:  # noqa: S310
            return answer.status == 200
    except OSError:
        return False


def check(run: Path, uri: str) -> None:
    found = readers.mlflow(run, uri)
    assert (found.status, found.project) == ("FINISHED", "birds")
    assert found.metrics["train/loss"] == {1: 3.0, 2: 1.5, 3: 1.0, 4: 0.75}
    assert found.artifact == {"adapter.txt": "weights"}
    assert "wren 4" in found.samples[4]
    assert not (run / "logs/mlflow").exists()


def test_a_server(server: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_twice("mlflow", run, tracking_uri=server)
    check(run, server)


def test_the_variable_names_a_store_that_runs_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MLflow puts the artifacts of such a store there
    run, uri = tmp_path / "run", f"sqlite:///{tmp_path / 'shared.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    run_twice("mlflow", run)
    check(run, uri)


def test_a_store_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3 asks for it
    run, uri = tmp_path / "run", (tmp_path / "store").as_uri()
    run_twice("mlflow", run, tracking_uri=uri)
    check(run, uri)


def test_a_password_in_the_address_is_refused() -> None:
    from tunewright_mlflow import MLflow

    with pytest.raises(ValueError, match="MLFLOW_TRACKING_PASSWORD"):
        MLflow.Options(tracking_uri="http://me:secret@localhost:5000")
