"""Benchmark of the web workbench against a bare Starlette application in the same run.

    python tests/bench/web.py [--repeat 5]

Prints CPU seconds and memory of the import of both servers, the smallest of three; the same of the
servers until they answer their first request, for a file: ours has read the command line by then,
with typer and pydantic; and with the first page, of 1,000 runs. Then CPU milliseconds of the server
for one request, the mean of all, and its ratio to a request of the bare application; then the share
of a core that an open page takes, by how often it asks; and, where there is a Chromium, the time
until the browser paints, the median. CPU time depends less on other load than wall time. Goals:
import and memory 1.5 times the bare one, an idle open page below 2 % of a core.
"""

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

BARE = """
import sys
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
app = Starlette(routes=[Route("/{path:path}", lambda request: PlainTextResponse("text"))])
uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
"""


@dataclass
class Server:
    process: psutil.Process
    port: int
    headers: dict[str, str]
    started: tuple[float, float]  # CPU seconds and bytes at its first answer

    def cost(self, path: str, repeat: int, sent: dict[str, str] | None = None) -> float:
        """CPU seconds of one request: the mean of so many groups of ten, since the clock of a
        process counts hundredths of a second."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        before = cpu(self.process)
        for _ in range(10 * repeat):
            connection.request("GET", path, headers=self.headers | (sent or {}))
            answer = connection.getresponse()
            answer.read()
            if answer.status not in (200, 304):
                sys.exit(f"{path}: status {answer.status}")
        connection.close()
        return (cpu(self.process) - before) / (10 * repeat)

    def once(self, path: str) -> float:
        """CPU seconds of the first request."""
        before = cpu(self.process)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        connection.request("GET", path, headers=self.headers)
        connection.getresponse().read()
        connection.close()
        return cpu(self.process) - before

    def tag(self, path: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("GET", path, headers=self.headers)
        answer = connection.getresponse()
        answer.read()
        return answer.headers["ETag"]


def cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def serving(command: list[str], port: int, headers: dict[str, str]) -> Iterator[Server]:
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL) as child:
        process = psutil.Process(child.pid)
        try:
            while True:
                try:
                    connection = http.client.HTTPConnection("127.0.0.1", port)
                    connection.request("GET", "/static/app.css", headers=headers)
                    connection.getresponse().read()
                    break
                except OSError:
                    time.sleep(0.05)
            started = cpu(process), float(process.memory_info().rss)
            yield Server(process, port, headers, started)
        finally:
            child.kill()


def imported(modules: str) -> tuple[float, float]:
    """CPU seconds and resident bytes of a Python that imports modules."""
    found = []
    for _ in range(3):
        child = os.posix_spawn(
            sys.executable, [sys.executable, "-c", f"import {modules}"], os.environ
        )
        used = os.wait4(child, 0)[2]
        found.append((used.ru_utime + used.ru_stime, 1024.0 * used.ru_maxrss))
    return min(found)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def paint(server: Server, repeat: int) -> float:
    """Seconds from the navigation to the first contentful paint, the median; 0 without a
    browser."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from playwright.sync_api import sync_playwright

    from browser.driver import executable, opened

    if not executable():
        return 0.0
    painted = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable())
        address = f"http://127.0.0.1:{server.port}"
        for _ in range(repeat):
            with opened(browser, address, extra_http_headers=server.headers) as page:
                page.page.goto("/")
                page.page.wait_for_timeout(300)
                found.append(page.page.evaluate(painted) or 0.0)
        browser.close()
    return statistics.median(found) / 1e3


def print_paint(ours: float, bare: float) -> None:
    if bare:
        print(f"{'first paint':40} {ours:8.2f} s   bare {bare:8.2f}  ratio {ours / bare:5.1f}")


def make_runs(root: Path) -> None:
    recipe = {"model": "tiny", "adapter": {"name": "lora"}, "stages": [{"name": "sft"}]}
    sizes = {"ten_thousand": 10_000, "long": 200_000}
    sizes |= {f"run{number:04}": 20 for number in range(1_000)}
    for name, steps in sizes.items():
        folder = root / "runs" / name
        folder.mkdir(parents=True)
        state = {"status": "completed", "stages": [], "recipe": recipe}
        (folder / "run.json").write_text(json.dumps(state))
        total = {"total_steps": steps}
        started = {"event": "StageStarted", "time": 0.0, "stage": "sft", "number": 1, "of": 1}
        started |= {"first_step": 0, **total}
        names = ("learning_rate", "grad_norm", "tokens", "tokens_per_second", "memory")
        metrics = {"loss": 1.5} | dict.fromkeys(names, 2.5)
        logged = {"event": "Logged", "time": 1.0, "stage": "sft", "step": 7, **total}
        line = json.dumps(logged | {"metrics": metrics}) + "\n"
        with (folder / "events.jsonl").open("w") as file:
            file.write(json.dumps({"event": "RunStarted", "time": 0.0}) + "\n")
            file.write(json.dumps(started) + "\n")
            for step in range(1, steps + 1):
                file.write(line.replace('"step": 7', f'"step": {step}'))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=5, help="groups of ten requests")
    repeat = parser.parse_args().repeat
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_runs(root)
        token = "a-token-of-the-benchmark"
        (root / "token").write_text(token)
        bare_alone = imported("uvicorn, starlette.applications, starlette.routing")
        ours_alone = imported("tunewright_web.start")
        port = free_port()
        with serving(["-c", BARE, str(port)], port, {}) as bare:
            begun, plain = bare.started, bare.cost("/", 20 * repeat)
            bare_paint = paint(bare, repeat)
        port = free_port()
        command = ["-m", "tunewright", "web", folder, "--port", str(port)]
        command += ["--token-file", str(root / "token")]
        headers = {"Authorization": f"Bearer {token}"}
        # once for the bytecode and the index of plugins
        with serving(command, port, headers):
            pass
        with serving(command, port, headers) as web:
            page = web.started[0] + web.once("/")
            memory = web.process.memory_info().rss
            for what, unit, ours, theirs in (
                ("CPU of the import", "s", ours_alone[0], bare_alone[0]),
                ("resident memory", "MB", ours_alone[1] / 1e6, bare_alone[1] / 1e6),
                ("CPU to the first answer", "s", web.started[0], begun[0]),
                ("  and the first page", "s", page, begun[0]),
                ("resident memory", "MB", web.started[1] / 1e6, begun[1] / 1e6),
                ("  after the first page", "MB", memory / 1e6, begun[1] / 1e6),
            ):
                print(
                    f"{what:40} {ours:8.2f} {unit:3} bare {theirs:8.2f}  ratio {ours / theirs:5.1f}"
                )
            print_paint(paint(web, repeat), bare_paint)
            print(f"{'bare request':40} {1e3 * plain:8.2f} ms")
            firsts = {"first curve of 200,000 steps": "/api/v1/runs/long/metrics?points=2000"}
            for what, path in firsts.items():
                print(f"{what:40} {1e3 * web.once(path):8.1f} ms")
            head = "/runs/ten_thousand/head"
            same = {"If-None-Match": web.tag(head), "HX-Request": "true"}
            for what, path, sent in (
                ("settings", "/settings", {}),
                ("list of 1,000 runs (API)", "/api/v1/runs", {}),
                ("page of 1,000 runs", "/", {}),
                ("curve of 10,000 steps", "/api/v1/runs/ten_thousand/metrics?points=2000", {}),
                ("curve of 200,000 steps", "/api/v1/runs/long/metrics?points=2000", {}),
                ("a page that asks, nothing new", head, same),
            ):
                cost = web.cost(path, repeat, sent)
                print(f"{what:40} {1e3 * cost:8.2f} ms  ratio {cost / plain:5.1f}")
            print(f"{'idle open page, asks every 5 s':40} {100 * cost / 5:8.2f} % of a core")
            print(f"{'page of a running run, every second':40} {100 * cost:8.2f} % of a core")


if __name__ == "__main__":
    main()
