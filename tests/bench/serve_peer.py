"""Benchmark of LLaMA-Factory's server beside ours: the same model, template, requests and machine.

    python -m venv peer && peer/bin/pip install llamafactory
    python tests/bench/serve_peer.py --command peer/bin/llamafactory-cli [--requests 8 32]
                                     [--repeats 3]

Both servers run at once, each as a process of its own with one thread, and are asked in turns: all
requests at the same time, whole answers of 32 tokens, greedy. The model has 19 M parameters and
random weights. Prints a table in Markdown: tokens per CPU-second of the server and its children,
and the median time to an answer over the time to the last, the medians of all repetitions.
LLaMA-Factory answers one request after another.
"""

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import torch
from train import write_model

from tunewright_serve.server import bound_socket

ANSWER, TOKEN = 32, "a-token-of-the-benchmark"
TEXT = "It rains in the north, and the boats stay in the harbour until the wind turns. " * 6


def free_port() -> int:
    with bound_socket("127.0.0.1", 0) as bound:
        port: int = bound.getsockname()[1]
        return port


class Served:
    """A server that runs."""

    def __init__(self, command: list[str], port: int, more: dict[str, Any], log: Path) -> None:
        self._port, self._more, self._log = port, more, log
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "API_PORT": str(port)}
        with log.open("w") as file:
            self._process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=environment
            )

    def wait(self) -> None:
        until = time.monotonic() + 600
        while True:
            try:
                self._post("Are you there?")
                return
            except ConnectionError as error:
                if self._process.poll() is not None or time.monotonic() > until:
                    self.stop()
                    sys.exit(
                        f"{self._log.read_text()[-3000:]}\nthe server does not answer: {error}"
                    )
                time.sleep(1)

    def _post(self, text: str) -> int:
        """Tokens of an answer."""
        body = {
            "model": "model",
            "messages": [{"role": "user", "content": text}],
            "max_tokens": ANSWER,
            "temperature": 0.0,
        }
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=600)) as line:
            line.request("POST", "/v1/chat/completions", json.dumps(body | self._more), headers)
            answer = line.getresponse()
            said = answer.read()
        if answer.status != 200:
            raise ConnectionError(f"{answer.status}: {said[:1000].decode()}")
        tokens: int = json.loads(said)["usage"]["completion_tokens"]
        return tokens

    def _cpu(self) -> float:
        """CPU seconds of the process and its children."""
        root = psutil.Process(self._process.pid)
        each = [process.cpu_times() for process in [root, *root.children(recursive=True)]]
        return sum(times.user + times.system for times in each)

    def measure(self, requests: int) -> tuple[float, float]:
        """Tokens per CPU-second, and the median time to an answer over the time to the last."""
        before, began = self._cpu(), time.perf_counter()
        ended: list[float] = []

        def ask(number: int) -> int:
            tokens = self._post(f"{number}. {TEXT}")
            ended.append(time.perf_counter() - began)
            return tokens

        with ThreadPoolExecutor(requests) as pool:
            tokens = sum(pool.map(ask, range(requests)))
        return tokens / (self._cpu() - before), statistics.median(ended) / max(ended)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


def ours(folder: Path) -> Served:
    (folder / "token").write_text(TOKEN)
    port = free_port()
    command = [sys.executable, "-m", "tunewright", "serve", str(folder / "model")]
    command += ["--port", str(port), "--token-file", str(folder / "token"), "--name", "model"]
    command += ["family=llama", "family.device=cpu", "family.dtype=float32", "template=chatml"]
    return Served(command, port, {"ignore_eos": True}, folder / "ours.log")


def peer(folder: Path, command: str) -> Served:
    recipe = {
        "model_name_or_path": str(folder / "model"),
        "template": "chatml",
        "infer_backend": "huggingface",
        "infer_dtype": "float32",
    }
    (folder / "peer.yaml").write_text(json.dumps(recipe))
    started = [command, "api", str(folder / "peer.yaml")]
    return Served(started, free_port(), {"do_sample": False}, folder / "peer.log")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--command", required=True, help="llamafactory-cli of an environment of its own"
    )
    parser.add_argument("--requests", nargs="+", type=int, default=[8, 32])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        torch.manual_seed(0)
        write_model(folder)
        servers = {"LLaMA-Factory": peer(folder, options.command), "Tunewright": ours(folder)}
        try:
            for server in servers.values():
                server.wait()
            print(
                "| server | requests | tokens per CPU-second | median answer |\n|---|---|---|---|"
            )
            for requests in options.requests:
                found: dict[str, list[tuple[float, float]]] = {name: [] for name in servers}
                for _ in range(options.repeats):
                    for name, server in servers.items():
                        found[name].append(server.measure(requests))
                for name, turns in found.items():
                    rate, median = (statistics.median(each) for each in zip(*turns, strict=True))
                    print(f"| {name} | {requests} | {rate:,.0f} | {median:.2f} |", flush=True)
        finally:
            for server in servers.values():
                server.stop()


if __name__ == "__main__":
    main()
