"""Requests that schemathesis makes from openapi.json: none is an internal error, and answers are as
described."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from starlette.testclient import TestClient

from tunewright_web.start import Settings, guarded, opened
from web.conftest import TOKEN
from web.fakes import logged, run_folder, stage_started, write_events

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,"
CHECKS += "response_schema_conformance,ignored_auth,unsupported_method"


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A server whose queue starts nothing, with a run."""
    settings = Settings(tmp_path, slots=())
    web = opened(settings)
    folder = run_folder(web.workspace.runs / "run")
    write_events(folder, [stage_started(9), *(logged(n) for n in range(1, 9))])
    config = uvicorn.Config(guarded(web, TOKEN, settings), log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.mark.slow
def test_schemathesis(address: str, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("schemathesis")
    command = [program, "run", f"{address}/api/v1/openapi.json"]
    command += ["--phases", "fuzzing", "--max-examples", "6"]
    command += ["-H", f"Authorization: Bearer {TOKEN}", "--checks", CHECKS, "--seed", "1"]
    command += ["--no-color", "--suppress-health-check", "all", "--generation-database", "none"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]


def test_every_route_is_described(client: TestClient) -> None:
    document = client.get("/api/v1/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"].endswith("."), path
    assert {"/api/v1/runs", "/api/v1/jobs", "/api/v1/check"} <= set(document["paths"])


def test_bodies(client: TestClient) -> None:
    """Row 34 of field/attacks.md: refused with one shape, at bounded cost."""
    for data, status in (
        (b"x" * 5_000_000, 413),
        (b"[" * 100_000, 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"recipe": {}, "trust_remote_code": true}', 422),
        (b"[]", 422),
    ):
        answer = client.post("/api/v1/jobs", content=data)
        assert answer.status_code == status, data[:20]
        assert {"error", "hint"} <= set(answer.json())
