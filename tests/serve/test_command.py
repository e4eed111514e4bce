"""`tunewright serve` in a process of its own, with a tiny model that was trained."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
import typer
from typer.testing import CliRunner, Result

import tunewright
from shared import SHARED
from tunewright_conformance.doubles import FakeRun
from tunewright_serve import command

CHECKS = SHARED / "tools/wire_checks.py"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    rows = [{"instruction": f"Say {n}.", "output": f"It is {n}."} for n in range(8)]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tunewright.train(
        {
            "model": "tiny",
            "family": "qwen",
            "data": [{"path": str(folder / "data.jsonl")}],
            "adapter": "lora",
            "stage": "sft",
            "training": {"max_steps": 2},
            "loggers": [],
            "output": str(folder / "run"),
        }
    )
    return folder / "run"


@contextmanager
def started(folder: Path, *options: str) -> Iterator[SimpleNamespace]:
    """The process, its address and its token."""
    command = [sys.executable, "-m", "tunewright", "serve", folder, "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            lines = [process.stdout.readline() for _ in range(3)]
            address = re.search(r"(http://\S+)/v1", lines[0])
            token = lines[1].removeprefix("Token: ").strip()
            assert address, lines
            yield SimpleNamespace(process=process, address=address[1], token=token, lines=lines)
        finally:
            process.kill()


def client(server: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.address}/v1", api_key=server.token, max_retries=0)


@pytest.mark.slow
def test_it_serves_drains_and_ends(run_folder: Path) -> None:
    with started(run_folder) as server:
        assert f"Serving {run_folder.name} at http://127.0.0.1:" in server.lines[0]
        assert "Sampling defaults" in server.lines[2]
        asked: dict[str, Any] = {"messages": [{"role": "user", "content": "Say 3."}]}
        made = client(server).chat.completions.create(model="run", max_tokens=4, **asked)
        assert made.usage and made.usage.completion_tokens > 0
        odd = [{"role": role, "content": "a"} for role in ("assistant", "user", "user", "system")]
        made = client(server).chat.completions.create(model="run", max_tokens=4, messages=odd)  # type: ignore[arg-type]
        assert made.usage and made.usage.completion_tokens > 0  # clients send what they like
        stream = client(server).chat.completions.create(
            model="run", max_tokens=60, stream=True, extra_body={"ignore_eos": True}, **asked
        )
        next(iter(stream))
        server.process.send_signal(signal.SIGTERM)
        last = list(stream)[-1]  # the open answer goes on to its end
        assert last.choices[0].finish_reason in ("length", "stop")
        assert server.process.wait(20) == 0


def test_it_listens_before_it_prints_its_address(
    monkeypatch: pytest.MonkeyPatch, run_folder: Path
) -> None:
    def announce(service: Any, address: str, *_: Any) -> None:
        where = urlsplit(address)
        socket.create_connection((where.hostname, where.port), 5).close()

    monkeypatch.setattr("tunewright_serve.start._announce", announce)
    monkeypatch.setattr("tunewright_serve.start.Server.run", lambda *_, **__: None)
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [str(run_folder), "--port", "0"])
    assert result.exception is None


@pytest.mark.slow
@pytest.mark.skipif(not CHECKS.is_file(), reason="shared/tools/wire_checks.py is not here")
def test_wire_checks_on_a_tiny_model(run_folder: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    with started(
        run_folder, "--max-length", "512", "--adapter", f"other={run_folder / 'model'}"
    ) as server:
        names = ["--token", server.token, "--adapter", "other", "--json", results]
        line = [sys.executable, CHECKS, server.address, *names]
        subprocess.run(line, check=False, capture_output=True, timeout=500)
    found = json.loads(results.read_text())
    assert [each for each in found if each["state"] == "FAIL"] == []


def called(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    monkeypatch.setattr("tunewright_hf.inference.opening.open_target", lambda *_, **__: FakeRun())
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, ["runs/a", *arguments])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--no-token", "--host", "203.0.113.1"], "can be reached from other machines"),
        (["--adapter", "x"], "expected NAME=PATH"),
        (["--adapter", "b=/nowhere/at/all"], "there is no folder"),
        (["--token-file", "/nowhere/at/all"], "cannot be read"),
        (["--host", "203.0.113.1"], "cannot be bound"),
    ],
)
def test_options_that_are_refused(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    assert says in str(called(monkeypatch, *arguments).exception)


def test_a_short_token_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc\n")
    result = called(monkeypatch, "--token-file", str(tmp_path / "token"))
    assert "at least 16" in str(result.exception)


def test_a_model_is_opened_as_chat_opens_it(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []

    def open_target(*what: Any, **how: Any) -> FakeRun:
        opened.append((*what, how["trust_remote_code"]))
        return FakeRun()

    monkeypatch.setattr("tunewright_hf.inference.opening.open_target", open_target)
    monkeypatch.setattr("tunewright_serve.start.serve", lambda *_: None)
    app = typer.Typer()
    app.command()(command)
    CliRunner().invoke(app, ["owner/model", "template=chatml", "--engine", "hf"])
    assert opened == [("owner/model", ["template=chatml", "engine=hf"], False)]
