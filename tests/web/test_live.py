"""Servers and trainings in processes of their own: what is killed, and what goes on."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from web.fakes import steps_of

PATIENCE = 120  # seconds: a loaded machine


class Server:
    """`tunewright web` in a process of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "tunewright", "web", str(folder), "--port", "0"]
        command += arguments
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
        assert self.process.stdout
        lines = [self.process.stdout.readline() for _ in range(3)]
        found = re.search(r"http://(127\.0\.0\.1:\d+)/\?token=(\S+)", lines[1])
        assert found, lines
        self.address, self.token = found.groups()

    def ask(self, path: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
        """Status and JSON of a request of the API."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body)
        with closing(http.client.HTTPConnection(self.address, timeout=60)) as connection:
            connection.request(method, f"/api/v1{path}", data, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def run(self, name: str = "run") -> dict[str, Any]:
        found: dict[str, Any] = self.ask(f"/runs/{name}")[1]
        return found

    def end(self, number: int = signal.SIGKILL) -> int:
        self.process.send_signal(number)
        code = self.process.wait(30)
        assert self.process.stdout
        self.process.stdout.close()
        return code


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[], Server]]:
    """serve(): a server of the workspace. Afterwards nothing of it runs."""
    started: list[Server] = []
    rows = [{"instruction": f"Say {n}.", "output": f"It is {n}."} for n in range(8)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def start(*arguments: str) -> Server:
        started.append(Server(tmp_path, *arguments))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.end()
    for path in (tmp_path / ".tunewright/jobs").glob("*/pid"):
        for pid in (json.loads(path.read_text())["child"],):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def wait(what: Callable[[], object], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.2)


def recipe(output: str = "runs/run", steps: int = 100_000) -> dict[str, Any]:
    return {
        "model": "tiny",
        "family": "qwen",
        "adapter": "lora",
        "data": [{"path": "data.jsonl"}],
        "stage": "sft",
        "training": {"max_steps": steps, "logging_steps": 1},
        "loggers": ["console"],
        "output": output,
    }


@pytest.mark.slow
def test_a_run_outlives_all(serve: Callable[[], Server]) -> None:
    """Two servers on one workspace: one queue. Both are killed: the training goes on. Stop, resume,
    and the trainer is killed: its exit code is told, and no step is lost or twice."""
    one, two = serve(), serve()
    assert one.token == two.token
    answers = [each.ask("/jobs", "POST", {"recipe": recipe()}) for each in (one, two)]
    assert [status for status, _ in answers] == [201, 409]
    assert "is there already" in str(answers[1][1]["problems"])
    status, waiting = two.ask("/jobs", "POST", {"recipe": recipe("runs/later")})
    assert status == 201
    wait(lambda: (one.run()["step"] or 0) > 3)
    assert one.run()["status"] == "running"
    assert two.run("later")["status"] == "queued"
    seen = one.ask("/runs/run/metrics")[1]
    for server in (one, two):
        server.end()
    last = steps_of(seen)[-1]

    again = serve()
    assert again.token == one.token  # pages that are open go on
    wait(lambda: again.run()["step"] > last)
    news = again.ask(f"/runs/run/metrics?after={seen['cursor']}")[1]
    assert not news["reset"]
    assert steps_of(news)[0] == last + 1
    assert again.ask(f"/jobs/{waiting['id']}/cancel", "POST")[0] == 200
    assert again.ask("/runs/later")[0] == 404
    assert again.ask("/runs/run/stop", "POST")[0] == 200
    wait(lambda: again.run()["status"] == "interrupted")
    wait(lambda: again.run()["can_resume"])  # its process is gone, too
    stopped = again.run()
    assert not stopped["can_stop"]

    assert again.ask("/runs/run/resume", "POST")[0] == 201
    assert again.ask("/runs/run/resume", "POST")[0] == 409
    wait(lambda: again.run()["step"] > stopped["step"])
    steps = steps_of(again.ask("/runs/run/metrics?points=20000")[1])
    assert steps == list(range(1, steps[-1] + 1))
    os.kill(again.run()["pid"], signal.SIGKILL)
    wait(lambda: again.run()["status"] == "failed", 10)
    assert again.run()["code"] == 137
    assert again.run()["can_resume"]


@pytest.mark.slow
def test_groups_of_processes(serve: Callable[..., Server], tmp_path: Path) -> None:
    """Two runs of two processes side by side, by the usual launcher: each has a port of its own.
    Stop reaches the workers, which save and end; kill leaves none."""
    server = serve("--slot", "", "--slot", "")
    for name in ("one", "two"):
        asked = recipe(f"runs/{name}") | {"launch": {"processes": 2}}
        assert server.ask("/jobs", "POST", {"recipe": asked})[0] == 201
    wait(lambda: all((server.run(name)["step"] or 0) > 2 for name in ("one", "two")))
    groups = {name: _processes(tmp_path, name) for name in ("one", "two")}
    assert all(len(group) >= 3 for group in groups.values()), groups  # the agent and two workers
    assert server.ask("/runs/one/stop", "POST")[0] == 200
    wait(lambda: server.run("one")["can_resume"])
    assert (server.run("one")["status"], server.run("one")["code"]) == ("interrupted", 130)
    assert not psutil.wait_procs(groups["one"], 20)[1]
    assert server.run("two")["status"] == "running"
    os.kill(groups["two"][0].pid, signal.SIGKILL)
    wait(lambda: server.run("two")["status"] == "failed")
    assert not psutil.wait_procs(groups["two"], 20)[1]


def _processes(folder: Path, name: str) -> list[psutil.Process]:
    """The command of a run's job, and all that it has started."""
    for file in (folder / ".tunewright/jobs").glob("*/job.json"):
        if json.loads(file.read_text())["output"] == f"runs/{name}":
            child = psutil.Process(json.loads(file.with_name("pid").read_text())["child"])
            return [child, *child.children(recursive=True)]
    raise AssertionError(f"no job writes runs/{name}")


def test_unix_socket(tmp_path: Path) -> None:
    """Only this user can open it; one that a killed server left is replaced, a used one is not."""
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    command = [sys.executable, "-m", "tunewright", "web", str(tmp_path), "--socket", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = "".join(process.stdout.readline() for _ in range(4))
        found = re.search(r"ssh -L 7860:(\S+) .*\n.*localhost:7860/\?token=(\S+)", said)
        assert found and found[1] == str(path), said
        assert path.stat().st_mode & 0o777 == 0o600
        for headers, status in (({}, b"401"), ({"Authorization": f"Bearer {found[2]}"}, b"200")):
            with socket.socket(socket.AF_UNIX) as asking:
                asking.connect(str(path))
                lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
                head = f"GET /api/v1/runs HTTP/1.1\r\nHost: localhost:7860\r\n{lines}\r\n"
                asking.sendall(head.encode())
                assert asking.recv(100).split()[1] == status
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 1 and f"{path}: cannot be bound" in second.stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert not path.exists()


@pytest.mark.slow
def test_ends_and_terminals(serve: Callable[[], Server], tmp_path: Path) -> None:
    """A short run to its end; a recipe that the kernel refuses at the start; a run from a
    terminal, which Stop reaches."""
    server = serve()
    assert server.ask("/jobs", "POST", {"recipe": recipe(steps=3)})[0] == 201
    file = tmp_path / "terminal.json"
    file.write_text(json.dumps(recipe("runs/terminal")))
    command = [sys.executable, "-m", "tunewright", "train", str(file)]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        wait(lambda: (server.run("terminal").get("step") or 0) > 2)
        assert server.run("terminal")["can_stop"]
        assert server.ask("/runs/terminal/stop", "POST")[0] == 200
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert server.run("terminal")["status"] == "interrupted"
    wait(lambda: server.run()["status"] == "completed")
    assert steps_of(server.ask("/runs/run/metrics")[1]) == [1, 2, 3]
    wait(lambda: not server.run()["is_ending"])
    assert server.ask("/runs/run", "DELETE")[0] == 200
    assert server.ask("/runs/run")[0] == 404
    assert server.end(signal.SIGTERM) == 0


def test_port_is_taken(tmp_path: Path) -> None:
    """One line, with a port that is free."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "tunewright", "web", str(tmp_path), "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert re.search(rf"127\.0\.0\.1:{port}: .*\(--port \d+ is free\)", done.stderr)


def test_refusals(tmp_path: Path) -> None:
    for arguments, said in (
        (["nowhere"], "is no folder"),
        ([".", "--allow", "nowhere"], "is no folder"),
        ([".", "--token-file", "nowhere"], "cannot be read"),
    ):
        command = [sys.executable, "-m", "tunewright", "web", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 2
        assert said in done.stderr


def test_the_server_imports_no_torch(tmp_path: Path) -> None:
    """Nor does --help import Starlette, nor a server without requests pydantic."""
    code = "import sys; import tunewright_web; assert 'starlette' not in sys.modules\n"
    code += "from pathlib import Path; from starlette.testclient import TestClient\n"
    code += "from tunewright_web.start import Settings, guarded, opened\n"
    code += f"settings = Settings(Path({str(tmp_path)!r})); web = opened(settings)\n"
    code += "with TestClient(guarded(web, 'x' * 20, settings), 'http://127.0.0.1') as client:\n"
    code += "    client.headers['Authorization'] = 'Bearer ' + 'x' * 20\n"
    code += "    assert client.get('/static/app.css').status_code == 200\n"
    code += "    assert not [name for name in sys.modules if name.startswith('pydantic')]\n"
    code += "    from tunewright_web.pages import NAVIGATION\n"
    code += "    for entry in NAVIGATION:\n"
    code += "        assert client.get(entry.path).status_code == 200\n"
    code += "heavy = {'torch', 'transformers', 'datasets', 'numpy', 'matplotlib'}\n"
    code += "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
