"""Benchmark of data preparation: speed, memory, and time per step.

    python tests/bench/data.py [--kind alpaca|chats] [--samples 100000|30000] [--times 10]
                               [--template chatml|qwen3] [--workers 1 2] [--repeat 3]
                               [--parts] [--profile] [--keep FOLDER]

Generates synthetic data (words of syllables with realistic frequencies; the same on every machine)
and a byte-level BPE of 32,000 tokens, trained on part of it. Each measurement runs in a separate
process, alternating, --repeat times. Measured are reading, converting, rendering, masking,
tokenising and writing to disk together, including the start of workers, but not imports and loading
the tokenizer. The baseline is `encode_batch_fast` of the tokenizers library alone, on all cores,
over the same rendered texts. Prints the fastest of each, and its share of the baseline: the median
of the shares of each turn, since other load varies. CPU seconds count all threads and workers, and
hardly depend on other load. Memory is the peak resident memory of the process and its workers, and
that before preparation began. --times: repeat the samples so many times, without the baseline, to
show that cost grows linearly and memory does not. --parts runs step after step; --profile shows
Python's profile for the first records.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import psutil
from data_measures import WHAT, data_path
from synthetic import train_tokenizer, write_data


def measure(what: str, options: argparse.Namespace, **dataset: Any) -> dict[str, Any]:
    """Run a measurement in a separate process."""
    shutil.rmtree(Path(options.keep) / "cache", ignore_errors=True)
    arguments = [
        "--samples",
        str(options.samples),
        "--times",
        str(options.times),
        "--kind",
        options.kind,
        "--template",
        options.template,
        "--keep",
        options.keep,
        "--dataset",
        json.dumps(dataset),
        "--what",
        what,
    ]
    command = [sys.executable, __file__, *arguments]
    errors = None if what == "profile" else subprocess.PIPE
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
        assert process.stdout
        watch = Watch(process.pid)
        for line in iter(process.stdout.readline, ""):
            if line == "ready\n":
                watch.start()
            elif line == "done\n":
                watch.stop()
            else:
                found: dict[str, Any] = json.loads(line) | watch.found
        if process.wait():
            sys.exit(process.stderr.read() if process.stderr else "failed")
    return found


class Watch(threading.Thread):
    """Samples the memory of a process and its children."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self._process, self._ended = psutil.Process(process), threading.Event()
        self.found: dict[str, Any] = {}

    def run(self) -> None:
        self.found = {"before": self._resident(), "memory": 0.0}
        while not self._ended.wait(0.5):
            self.found["memory"] = max(self.found["memory"], self._resident())

    def stop(self) -> None:
        self._ended.set()
        self.join()

    def _resident(self) -> float:
        total = 0
        for process in (self._process, *self._process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total / (1 << 20)


def show(name: str, made: list[dict[str, Any]], samples: int, limit: list[dict[str, Any]]) -> None:
    best = min(made, key=lambda result: result["seconds"])
    rate, tokens = samples / best["seconds"], best["tokens"] / best["seconds"]
    cpu = 1e6 * min(result["cpu"] for result in made) / samples
    share = ""
    if limit and limit is not made:
        shares = [
            theirs["seconds"] / ours["seconds"] for ours, theirs in zip(made, limit, strict=True)
        ]
        share = f" {100 * statistics.median(shares):4.0f} % of it"
    memory = f"{max(result['memory'] for result in made):6,.0f} MB ({best['before']:,.0f} before)"
    all_ = ", ".join(f"{result['seconds']:.1f}" for result in made)
    print(
        f"{name:24} {rate:7,.0f} samples/s {tokens:10,.0f} tokens/s {cpu:6.0f} µs CPU "
        f"{memory}{share}  [{all_} s]"
    )


def compare(options: argparse.Namespace) -> None:
    samples, turns = options.samples * options.times, []
    for _ in range(options.repeat):
        limit = [] if options.times > 1 else [measure("yardstick", options)]
        turns.append(
            [
                *limit,
                *(measure("prepared", options, workers=workers) for workers in options.workers),
            ]
        )
    columns = [list(column) for column in zip(*turns, strict=True)]
    limit = [] if options.times > 1 else columns.pop(0)
    if limit:
        print(f"{limit[0]['tokens'] / samples:.0f} tokens a sample")
        show("encode_batch_fast alone", limit, samples, limit)
    for workers, made in zip(options.workers, columns, strict=True):
        show(f"prepared, {workers} worker{'s' * (workers > 1)}", made, samples, limit)
    facts = {
        name: value
        for name, value in columns[0][0].items()
        if name.startswith(("padding", "packing"))
    }
    print("; ".join(f"{name} {value:.3f}" for name, value in facts.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--kind", choices=["alpaca", "chats"], default="alpaca")
    parser.add_argument("--template", default="chatml")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument(
        "--keep", help="folder for the data and the tokenizer, which are then there again"
    )
    parser.add_argument("--dataset", default="{}", help=argparse.SUPPRESS)
    parser.add_argument("--what", choices=WHAT, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.samples = options.samples or {"alpaca": 100_000, "chats": 30_000}[options.kind]
    if options.what:
        print(json.dumps(WHAT[options.what](options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        options.keep = options.keep or folder
        Path(options.keep).mkdir(parents=True, exist_ok=True)
        write_data(data_path(options), options.kind, options.samples, options.times)
        size = data_path(options).stat().st_size
        train_tokenizer(Path(options.keep))
        # not available on Windows
        load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
        rows = (
            f"{options.samples * options.times:,} {options.kind}, {size / 1e6:,.0f} MB, "
            f"{options.template}"
        )
        print(f"{rows}, {os.cpu_count()} cores{load}", flush=True)
        compare(options)
        if options.parts:
            found = min(
                (measure("parts", options) for _ in range(options.repeat)),
                key=lambda made: made["seconds"],
            )
            for name, microseconds in found["parts"].items():
                print(f"  {microseconds:8.1f} µs a sample  {name}")
        if options.profile:
            measure("profile", options)


if __name__ == "__main__":
    main()
